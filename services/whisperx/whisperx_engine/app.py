"""The engine behind the shared routes and its own."""

from __future__ import annotations

from fastapi import FastAPI
from speech_service.app import create_app

from . import routes
from .engine import IsolatedWhisperX
from .settings import WhisperXSettings


def create(settings: WhisperXSettings) -> FastAPI:
    """Return the service; nothing heavy is imported before it has started."""
    return create_app(IsolatedWhisperX(settings), settings, "whisperx", [routes.router])
