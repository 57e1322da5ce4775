"""`python -m faster_whisper_engine`: serve on UVICORN_HOST and UVICORN_PORT."""

import sys

from speech_service.server import main

from .app import create
from .settings import EngineSettings

if __name__ == "__main__":
    sys.exit(main(EngineSettings, create))
