"""The live protocol of faster-whisper-server."""

from __future__ import annotations

import pytest
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


def test_a_bad_query_is_explained_before_the_socket_closes() -> None:
    with (
        serve() as http,
        connect(url_of(http, "/v1/audio/transcriptions?language=xx"), proxy=None) as socket,
    ):
        (answer,) = received(socket)
        assert answer["error"]["param"] == "language"
        assert socket.close_code == 1008
