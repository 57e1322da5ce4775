"""The routes of older servers, in the shapes their clients read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from speech_service.media import remote

from ... import media
from ...harness import FakeEngine, serve

TEXT = "one two three four five"


def file(name: str = "file") -> dict[str, Any]:
    return {name: ("my speech.wav", media.tone(2.0))}


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


@contextmanager
def web(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_allowed_address_is_transcribed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A test may connect to the loopback only, which is what the rule forbids.
    monkeypatch.setattr(remote.fetch, "__defaults__", (lambda address: True,))
    with web(Talk) as url, serve(allow_url=True) as http:
        answer = http.post("/transcribe/url", json={"url": f"{url}/talk.mp3", "language": "en"})
    assert answer.json()["text"] == TEXT
    assert answer.json()["filename"] == "talk.mp3"


@pytest.mark.parametrize(
    ("output", "begins"),
    [
        ("txt", "one two three"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,500"),
        ("vtt", "WEBVTT"),
        ("tsv", "start\tend\ttext"),
        ("json", "{"),
    ],
)
def test_asr_answers_an_attachment(output: str, begins: str) -> None:
    engine = FakeEngine()
    with serve(engine) as http:
        query = {"output": output, "language": "en", "initial_prompt": "Hi", "vad_filter": "true"}
        answer = http.post("/asr", params=query, files=file("audio_file"))
    assert answer.text.startswith(begins)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    disposition = f'attachment; filename="my%20speech.wav.{output}"'
    assert answer.headers["content-disposition"] == disposition
    assert (engine.asked[0].prompt, engine.asked[0].language) == ("Hi", "en")
    assert engine.asked[0].voice_activity is not None


def test_asr_gives_words_inside_their_segments() -> None:
    with serve() as http:
        query = {"output": "json", "word_timestamps": "true"}
        answer = json.loads(http.post("/asr", params=query, files=file("audio_file")).text)
    assert answer["language"] == "fr"
    assert [word["word"] for word in answer["segments"][0]["words"]] == ["one", "two", "three"]


def test_asr_takes_bare_samples() -> None:
    engine = FakeEngine()
    raw = {"audio_file": ("raw", media.tone(2.0)[44:])}
    with serve(engine) as http:
        answer = http.post("/asr", params={"encode": "false"}, files=raw)
        assert answer.text == TEXT + "\n"
        assert engine.heard == [2.0]
        refused = http.post("/asr", params={"output": "pdf"}, files=raw)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "output")


def test_a_language_is_detected() -> None:
    engine = FakeEngine()
    with serve(engine) as http:
        answer = http.post("/detect-language", files=file("audio_file"))
    assert answer.json() == {
        "detected_language": "french",
        "language_code": "fr",
        "confidence": 0.9,
    }
    assert engine.asked[0].language_only
