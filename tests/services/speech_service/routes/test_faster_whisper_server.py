"""The live protocol of faster-whisper-server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from speech_service.contract.errors import ModelUnavailable
from websockets.exceptions import ConnectionClosed
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


def test_the_whole_session_is_described() -> None:
    path = "/v1/audio/transcriptions?response_format=verbose_json&language=en"
    with serve(Recorder()) as http, connect(url_of(http, path), proxy=None) as socket:
        for _ in range(3):
            socket.send(sound(1.0, 0.8).tobytes())
        *_, answer = received(socket)
    assert answer["duration"] == answer["usage"]["seconds"] == pytest.approx(5.4, abs=0.01)
    assert [part["id"] for part in answer["segments"]] == [0, 1, 2]
    starts = [part["start"] for part in answer["segments"]]
    assert starts == sorted(starts) and starts[-1] > 3.5
    seeks = [part["seek"] / 100 for part in answer["segments"]]
    assert all(seek <= start for seek, start in zip(seeks, starts, strict=True)) and seeks[-1] > 3


def lasted(*sounds: tuple[float, ...], pause: float = 0.0, **settings: Any) -> list[str]:
    """The last texts of a session that hears sounds, with a pause on the wire between them."""
    heard: list[str] = []
    with (
        serve(Recorder(), **settings) as http,
        connect(url_of(http, "/v1/audio/transcriptions?language=en"), proxy=None) as socket,
    ):
        try:
            for number, lengths in enumerate(sounds):
                time.sleep(pause if number else 0)
                socket.send(sound(*lengths).tobytes())
        except ConnectionClosed:
            pass
        heard += [message["text"] for message in received(socket)]
    return heard[-1].split()


def test_a_client_that_stops_sending_is_done_after_the_time_that_is_set() -> None:
    speech = (0.6, 0.6)
    assert lasted(speech, speech, pause=1.5) == ["utterance0"]
    assert lasted(speech, speech, pause=1.5, max_no_data_seconds=3) == ["utterance0", "utterance1"]


def test_silence_ends_the_session_after_the_time_that_is_set() -> None:
    limits = {"max_inactivity_seconds": 1.0, "inactivity_window_seconds": 2.0}
    pieces = [(0.6, 0.6), (0.0, 0.6), (0.0, 0.6), (0.0, 0.6), (1.0, 0.6)]
    assert lasted(*pieces, pause=0.4) == ["utterance0", "utterance1"]
    assert lasted(*pieces, pause=0.4, **limits) == ["utterance0"]


def test_what_is_short_is_heard_with_what_follows() -> None:
    speech = (0.3, 0.6, 0.3, 1.5)
    assert lasted(speech, min_duration=0) == ["utterance0", "utterance1"]
    assert lasted(speech) == ["utterance0"]


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


@pytest.mark.parametrize(
    ("query", "param"),
    [("language=xx", "language"), ("temperature=5", "temperature"), ("model=org/none", "model")],
)
def test_a_bad_query_is_explained_before_the_socket_closes(query: str, param: str) -> None:
    path = f"/v1/audio/transcriptions?{query}"
    with serve() as http, connect(url_of(http, path), proxy=None) as socket:
        (answer,) = received(socket)
        assert answer["error"]["param"] == param
        assert socket.close_code == 1008
