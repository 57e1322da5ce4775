"""`/transcribe` and `/transcribe/url`, in the shapes that the clients of older servers read."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
from speech_service.media import remote

from ... import media
from ...harness import serve, wait_until
from ...web import web

TEXT = "one two three four five"


def file() -> dict[str, Any]:
    return {"file": ("my speech.wav", media.tone(2.0))}


def test_one_object_serves_two_older_clients() -> None:
    with serve() as http:
        answer = http.post(
            "/transcribe", files=file(), data={"language": "en", "task": "translate"}
        )
    found = answer.json()
    assert found.pop("info")["transcription_options"]["task"] == "translate"
    assert found.pop("segments")[0] == {
        "start": 0.0,
        "end": 1.5,
        "text": " one two three",
        "no_speech_prob": 0.0,
    }
    assert found == {
        "success": True,
        "text": TEXT,
        "language": "en",
        "duration": 2.0,
        "filename": "my speech.wav",
    }


def test_info_tells_what_was_heard() -> None:
    with serve() as http:
        info = http.post("/transcribe", files=file()).json()["info"]
    assert (info["language"], info["language_probability"]) == ("fr", 0.9)
    assert (info["duration"], info["duration_after_vad"]) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("files", "data", "status"),
    [
        ({"file": ("a", b"")}, {}, 400),
        ({"file": ("a", b"nothing")}, {}, 415),
        (file(), {"language": "xx"}, 422),
        (file(), {"model": "nothing"}, 404),
        ({}, {"language": "en"}, 422),
    ],
)
def test_errors_are_plain_with_the_right_status(
    files: dict[str, Any], data: dict[str, str], status: int
) -> None:
    with serve() as http:
        answer = http.post("/transcribe", files=files, data=data)
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert isinstance(answer.json()["error"], str)


def test_fetching_addresses_is_off_by_default() -> None:
    with serve() as http:
        answer = http.post("/transcribe/url", json={"url": "https://example.org/a.mp3"})
    assert answer.status_code == 404
    assert "ALLOW_URL" in answer.json()["error"]


def test_an_address_that_is_blocked_is_a_400() -> None:
    with serve(allow_url=True) as http:
        answer = http.post("/transcribe/url", json={"url": "http://127.0.0.1:9/a.mp3"})
        assert (answer.status_code, answer.json()["success"]) == (400, False)
        assert http.post("/transcribe/url", json={"address": "x"}).status_code == 422


class Talk(BaseHTTPRequestHandler):
    """Serves one recording."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(media.tone(2.0))

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


def test_an_allowed_address_is_transcribed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A test may connect to the loopback only, which is what the rule forbids.
    monkeypatch.setattr(remote.fetch, "__defaults__", (lambda address: True,))
    with web(Talk) as url, serve(allow_url=True) as http:
        answer = http.post(
            "/transcribe/url",
            json={
                "url": f"{url}/talk.mp3",
                "language": "English",
                "model": None,
                "task": "Transcribe",
            },
        )
    assert answer.json()["text"] == TEXT
    assert answer.json()["filename"] == "talk.mp3"


def test_an_address_that_dawdles_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.fetch, "__defaults__", (lambda address: True,))
    allowed = threading.Event()

    class Dawdling(Talk):
        def do_GET(self) -> None:
            assert allowed.wait(20)
            super().do_GET()

    with web(Dawdling) as url, serve(allow_url=True, max_uploads=14) as http:
        answers: list[int] = []

        def ask() -> None:
            body = {"url": f"{url}/talk.mp3"}
            answer = httpx.post(f"{http.base_url}/transcribe/url", json=body, timeout=60)
            answers.append(answer.status_code)

        asking = [threading.Thread(target=ask) for _ in range(13)]
        for thread in asking:
            thread.start()
        wait_until(lambda: fetching() == 13)
        assert http.get("/v1/models", timeout=5).status_code == 200
        spoken = http.post("/transcribe", files={"file": media.tone()}, timeout=5)
        assert spoken.status_code == 200
        allowed.set()
        for thread in asking:
            thread.join(30)
    assert answers == [200] * 13


def fetching() -> int:
    """How many addresses are being fetched, by the threads that do so."""
    return sum(thread.name.startswith("speech-download") for thread in threading.enumerate())
