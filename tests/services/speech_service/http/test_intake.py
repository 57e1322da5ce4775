"""What every route that takes speech does with its request, seen from outside."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from ... import media
from ...harness import FakeEngine, segment, serve, wait_until

LONG = media.tone(60.0)
"""Too large to be kept in memory while it arrives."""
OPENAI, ASR, PLAIN = "/v1/audio/transcriptions", "/asr", "/transcribe"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where uploads wait."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def open_files(folder: Path) -> int:
    """How many files of a folder this process holds, which is the service's too."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(link).startswith(str(folder))
        except FileNotFoundError:
            continue  # it was closed meanwhile
    return count


@pytest.mark.parametrize(
    ("path", "field", "data", "fields", "status"),
    [
        (OPENAI, "file", LONG, {}, 200),
        (OPENAI, "file", LONG, {"stream": "true"}, 200),
        (OPENAI, "file", LONG, {"language": "xx"}, 422),
        (OPENAI, "file", LONG, {"diarize": "true"}, 400),
        (OPENAI, "file", LONG, {"model": "nothing"}, 404),
        (OPENAI, "file", bytes(2_000_000), {}, 415),
        (OPENAI, "other", LONG, {}, 422),
        (PLAIN, "file", LONG, {}, 200),
        (PLAIN, "file", LONG, {"task": "sing"}, 422),
        (ASR, "audio_file", LONG, {}, 200),
        ("/detect-language", "audio_file", LONG, {}, 200),
    ],
)
def test_an_upload_is_closed_however_its_request_ends(
    path: str, field: str, data: bytes, fields: dict[str, str], status: int, folder: Path
) -> None:
    seen: list[int] = []
    engine = FakeEngine(pace=lambda: seen.append(open_files(folder)))
    with serve(engine) as http:
        answer = http.post(path, files={field: ("a.wav", data)}, data=fields)
        assert answer.status_code == status
        wait_until(lambda: open_files(folder) == 0)
    assert set(seen) <= {1}, "the job that decodes it holds it"


def test_an_upload_is_closed_when_its_client_leaves(folder: Path) -> None:
    many = tuple(segment("one", float(number), number) for number in range(400))
    engine = FakeEngine(many, pace=lambda: time.sleep(0.05))
    with serve(engine) as http:
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.Client(base_url=http.base_url, timeout=0.5, trust_env=False) as hasty,
        ):
            hasty.post(OPENAI, files={"file": LONG})
        wait_until(lambda: open_files(folder) == 0, 5)
        assert 0 < engine.decoded < 400


@pytest.mark.parametrize("path", [OPENAI, "/v1/audio/translations", PLAIN, ASR, "/detect-language"])
def test_a_full_queue_refuses_before_the_body_has_come(path: str) -> None:
    allowed = threading.Event()
    engine = FakeEngine(pace=lambda: allowed.wait(20))
    with serve(engine, max_queued=0) as http:
        files: dict[str, Any] = {"file": media.tone()}
        first = threading.Thread(
            target=lambda: httpx.post(f"{http.base_url}{OPENAI}", files=files, timeout=30)
        )
        first.start()
        wait_until(lambda: len(engine.asked) == 1)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        address = http.base_url.host, http.base_url.port or 80
        with socket.create_connection(address, 10) as connection:
            connection.sendall(head.encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 429")
        allowed.set()
        first.join(20)
