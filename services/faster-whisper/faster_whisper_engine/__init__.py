"""OpenAI-compatible speech-to-text on faster-whisper."""
