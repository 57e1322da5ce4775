"""The engine behind the shared routes."""

from __future__ import annotations

from fastapi import FastAPI
from speech_service.app import create_app

from .engine import FasterWhisper
from .settings import EngineSettings


def create(settings: EngineSettings) -> FastAPI:
    """Return the service; nothing heavy is imported before it has started."""
    return create_app(FasterWhisper(settings), settings, "faster-whisper")
