"""The routes of whisper-asr-webservice, as subtitle tools use them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ... import media
from ...harness import FakeEngine, serve

TEXT = "one two three four five"


def file() -> dict[str, Any]:
    return {"audio_file": ("my speech.wav", media.tone(2.0))}


def test_fields_may_be_empty_and_come_in_the_body() -> None:
    engine = FakeEngine()
    with serve(engine) as http:
        empty = {"language": "", "initial_prompt": "", "encode": "", "output": "SRT"}
        answer = http.post("/asr", params=empty, files=file())
        assert answer.text.startswith("1\n")
        answer = http.post("/asr", data={"language": "German", "output": "txt"}, files=file())
        assert answer.status_code == 200
        detected = http.post("/detect-language", params={"encode": "True"}, files=file())
        assert detected.status_code == 200
    assert [asked.language for asked in engine.asked] == [None, "de", None]
    assert engine.asked[0].prompt is None


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
        answer = http.post("/asr", params=query, files=file())
    assert answer.text.startswith(begins)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    disposition = f'attachment; filename="my%20speech.wav.{output}"'
    assert answer.headers["content-disposition"] == disposition
    assert (engine.asked[0].prompt, engine.asked[0].language) == ("Hi", "en")
    assert engine.asked[0].voice_activity is not None


def test_asr_gives_words_inside_their_segments() -> None:
    with serve() as http:
        query = {"output": "json", "word_timestamps": "true"}
        answer = json.loads(http.post("/asr", params=query, files=file()).text)
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
        answer = http.post("/detect-language", files=file())
    assert answer.json() == {
        "detected_language": "french",
        "language_code": "fr",
        "confidence": 0.9,
    }
    assert engine.asked[0].language_only
