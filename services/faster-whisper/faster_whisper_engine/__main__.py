"""`python -m faster_whisper_engine`: serve on UVICORN_HOST and UVICORN_PORT."""

from __future__ import annotations

import gc
import sys


def run() -> int:
    """Import the service and serve; return the exit status."""
    # What imports make stays for good: looking for garbage among it takes a tenth of the start.
    gc.disable()
    from speech_service.server import main

    from .app import create
    from .settings import EngineSettings

    gc.freeze()
    gc.enable()
    return main(EngineSettings, create)


if __name__ == "__main__":
    sys.exit(run())
