"""`python -m faster_whisper_engine`: serve on UVICORN_HOST and UVICORN_PORT, and on older ports."""

from __future__ import annotations

import sys

from speech_service.process.startup import lasting_imports


def run() -> int:
    """Import the service and serve; return the exit status."""
    with lasting_imports():
        from speech_service.http.server import main

        from .app import create
        from .settings import FasterWhisperSettings
    return main(FasterWhisperSettings, create)


if __name__ == "__main__":
    sys.exit(run())
