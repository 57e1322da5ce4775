"""Recordings: from bytes of any kind to samples, within limits.

Touches files, FFmpeg and, where that is allowed, the internet; knows no web framework, no queue and
no model.
"""
