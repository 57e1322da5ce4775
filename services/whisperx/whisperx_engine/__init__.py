"""Speech-to-text with word alignment and speaker diarization, on WhisperX.

Built on the first engine, whose models and settings it shares.
"""
