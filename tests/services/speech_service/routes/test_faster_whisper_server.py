"""The live protocol of faster-whisper-server."""

from __future__ import annotations

import pytest
from speech_service.contract.errors import ModelUnavailable
from websockets.sync.client import connect

from ...harness import FakeEngine, segment, serve
from ...spoken import Recorder, received, sound, url_of

SAID = FakeEngine(says=(segment("one two"),))


def test_the_socket_of_faster_whisper_server_sends_the_transcript_so_far() -> None:
    engine = Recorder()
    with (
        serve(engine) as http,
        connect(url_of(http, "/v1/audio/transcriptions?language=en"), proxy=None) as socket,
    ):
        socket.send(sound(1.0, 1.0, 1.5).tobytes())
        assert list(received(socket)) == [
            {"text": "utterance0"},
            {"text": "utterance0 utterance1"},
        ]
    assert engine.heard == [pytest.approx(1.3, abs=0.05), pytest.approx(1.8, abs=0.1)]
    assert engine.asked[0].language == "en"


def test_its_formats_are_those_of_the_upload() -> None:
    with (
        serve(SAID) as http,
        connect(
            url_of(http, "/v1/audio/transcriptions?response_format=verbose_json"), proxy=None
        ) as socket,
    ):
        socket.send(sound(1.0).tobytes())
        (answer,) = received(socket)
    assert answer["text"] == "one two"
    assert answer["segments"][0]["start"] == 0.0


@pytest.mark.parametrize(
    ("name", "begins"),
    [("text", "one two"), ("srt", "1\n00:00:00,"), ("vtt", "WEBVTT\n\n00:00:00.")],
)
def test_a_transcript_that_is_text_comes_as_it_is(name: str, begins: str) -> None:
    path = f"/v1/audio/transcriptions?response_format={name}"
    with serve(SAID) as http, connect(url_of(http, path), proxy=None) as socket:
        socket.send(sound(1.0).tobytes())
        answer = socket.recv(timeout=20)
    assert isinstance(answer, str)
    assert answer.startswith(begins) and "one two" in answer


def test_speakers_are_not_told_apart_live() -> None:
    path = "/v1/audio/transcriptions?response_format=diarized_json"
    with serve() as http, connect(url_of(http, path), proxy=None) as socket:
        (answer,) = received(socket)
        assert answer["error"]["param"] == "response_format"
        assert socket.close_code == 1008


def test_an_utterance_that_fails_is_told_and_ends_the_session() -> None:
    def pace() -> None:
        raise ModelUnavailable("the disk is gone")

    engine = FakeEngine(says=(segment("one"),), pace=pace)
    path = "/v1/audio/transcriptions"
    with serve(engine) as http, connect(url_of(http, path), proxy=None) as socket:
        socket.send(sound(1.0).tobytes())
        (answer,) = received(socket)
        assert answer["error"]["message"] == "the disk is gone"
        assert socket.close_code == 1013


def test_a_bad_query_is_explained_before_the_socket_closes() -> None:
    with (
        serve() as http,
        connect(url_of(http, "/v1/audio/transcriptions?language=xx"), proxy=None) as socket,
    ):
        (answer,) = received(socket)
        assert answer["error"]["param"] == "language"
        assert socket.close_code == 1008
