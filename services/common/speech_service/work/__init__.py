"""Transcriptions under way: turns, models in memory, jobs, live sessions, and what is counted.

The event loop, its threads and what the hub says of a model belong here; no web framework does.
"""
