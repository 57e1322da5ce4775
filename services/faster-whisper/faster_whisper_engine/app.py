"""The engine behind the shared routes."""

from __future__ import annotations

from fastapi import FastAPI
from speech_service.app import create_app
from speech_service.routes import legacy, live, realtime

from .engine import FasterWhisper
from .settings import EngineSettings


def create(settings: EngineSettings) -> FastAPI:
    """Return the service; nothing heavy is imported before it has started."""
    families = (legacy.plain, legacy.asr, live.router, realtime.router)
    return create_app(FasterWhisper(settings), settings, "faster-whisper", families)
