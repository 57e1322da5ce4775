"""The faster-whisper service as a process of its own, as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.ports import free_port

from .harness import wait_until

MODEL = Path(__file__).parents[1] / "speech" / "model"


@dataclass
class Program:
    """A running service."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    log: Path

    @property
    def resident_bytes(self) -> int:
        """Memory of the process, from /proc/PID/statm."""
        pages = (Path("/proc") / str(self.process.pid) / "statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def program(folder: Path, **environment: str) -> Iterator[Program]:
    """Start the service and yield it once `/health` answers; it must end with 0 on SIGTERM.

    Args:
        folder: for its log and its cache.
        environment: the settings; the model that was trained for tests, offline, by default.
    """
    log = folder / "engine.log"
    inherited = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    settings = {
        "UVICORN_PORT": str(free_port()),
        "WHISPER__MODEL": str(MODEL),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        **environment,
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "faster_whisper_engine"],
            env=inherited | settings,
            stdout=stream,
            stderr=stream,
        )
    base = f"http://127.0.0.1:{settings['UVICORN_PORT']}"
    try:
        with httpx.Client(base_url=base, timeout=60, trust_env=False) as http:
            wait_until(lambda: http.get("/health").status_code == 200, 30)
            yield Program(process, http, log)
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
