"""The end of the process: orderly, in time, with status 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port

from ... import media
from ...harness import wait_until

ROOT = Path(__file__).parents[4]
SCRIPT = """
import sys, time
from speech_service.app import create_app
from speech_service.http.server import main
from speech_service.contract.settings import Settings
from tests.services.harness import FakeEngine, segment

many = tuple(segment("one", float(number), number) for number in range(10))
engine = FakeEngine(many, pace=lambda: time.sleep(float(sys.argv[1])))
sys.exit(main(Settings, lambda settings: create_app(engine, settings, "test")))
"""


def stop_while_busy(pace: float, grace: int, number: signal.Signals) -> tuple[int, float, int]:
    """Stop a service that decodes; return its status, the seconds it took, the client's answer."""
    port = free_port()
    environment = os.environ | {
        "UVICORN_PORT": str(port),
        "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": str(grace),
    }
    command = [sys.executable, "-c", SCRIPT, str(pace)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    answers: list[int] = []

    def send() -> None:
        try:
            files = {"file": media.tone()}
            answer = httpx.post(f"{url}/v1/audio/transcriptions", files=files, timeout=60)
            answers.append(answer.status_code)
        except httpx.TransportError:
            answers.append(0)

    try:
        wait_until(lambda: httpx.get(f"{url}/ready").status_code == 200, 30)
        sending = threading.Thread(target=send)
        sending.start()
        wait_until(lambda: "speech_jobs_running 1.0" in httpx.get(f"{url}/metrics").text)
        started = time.monotonic()
        process.send_signal(number)
        status = process.wait(60)
        took = time.monotonic() - started
        sending.join(60)
    finally:
        process.kill()
        process.wait()
    return status, took, answers[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_job_is_finished(number: signal.Signals) -> None:
    status, _, answer = stop_while_busy(pace=0.1, grace=20, number=number)
    assert (status, answer) == (0, 200)


def test_a_job_that_takes_too_long_does_not_keep_the_process() -> None:
    status, took, answer = stop_while_busy(pace=40.0, grace=1, number=signal.SIGTERM)
    assert status == 0
    assert answer != 200
    assert took < 20
