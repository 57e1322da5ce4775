"""The engine behind the shared routes."""

from __future__ import annotations

from fastapi import FastAPI
from speech_service.app import create_app
from speech_service.routes import (
    faster_whisper_server,
    plain,
    realtime,
    whisper_asr,
    whisper_live,
)

from .engine import FasterWhisper
from .settings import EngineSettings

FAMILIES = (plain, whisper_asr, faster_whisper_server, whisper_live, realtime)
"""The clients that are served beside OpenAI's."""


def create(settings: EngineSettings) -> FastAPI:
    """Return the service; nothing heavy is imported before it has started."""
    families = [family.router for family in FAMILIES]
    return create_app(FasterWhisper(settings), settings, "faster-whisper", families)
