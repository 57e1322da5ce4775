"""Speech-to-text with word alignment and speaker diarization, on WhisperX."""
