"""OpenAI-compatible speech-to-text on faster-whisper. Knows no other engine."""
