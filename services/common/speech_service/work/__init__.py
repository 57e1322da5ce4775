"""Transcriptions under way: turns, models in memory, jobs, live sessions, and what is counted.

The event loop and its threads belong here; no web framework does.
"""
