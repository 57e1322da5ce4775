"""OpenAI's Realtime API, with its own client and by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from speech_service.contract.errors import ModelUnavailable
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from ...harness import FakeEngine, segment, serve
from ...spoken import Recorder, sound, url_of


def pcm24(samples: NDArray[np.int16]) -> str:
    """Samples at 16 kHz as the base64 of 24 kHz, every second one repeated."""
    index = np.arange(len(samples) * 3 // 2) * 2 // 3
    return base64.b64encode(samples[index].tobytes()).decode()


@pytest.fixture
def realtime() -> Iterator[tuple[openai.OpenAI, FakeEngine]]:
    engine = Recorder()
    with (
        serve(engine) as http,
        openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none") as client,
    ):
        yield client, engine


# The client opens its socket in a way that the library under it calls deprecated.
@pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning")
def test_the_official_realtime_client_hears_what_was_said(
    realtime: tuple[openai.OpenAI, FakeEngine],
) -> None:
    client, engine = realtime
    query = {"intent": "transcription"}
    with client.realtime.connect(extra_query=query) as connection:
        created = connection.recv()
        assert created.type == "session.created"
        connection.session.update(
            session={
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "whisper-1", "language": "de"}}},
            }
        )
        updated = connection.recv()
        assert updated.type == "session.updated"
        connection.input_audio_buffer.append(audio=pcm24(sound(1.0, 1.0)))
        events = [connection.recv() for _ in range(5)]
    assert [event.type for event in events] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    completed = events[-1]
    assert completed.type == "conversation.item.input_audio_transcription.completed"
    assert completed.transcript == "utterance0"
    assert len({event.item_id for event in events if hasattr(event, "item_id")}) == 1
    assert engine.asked[0].language == "de"


class Realtime:
    """The protocol by hand."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def send(self, kind: str, **fields: Any) -> None:
        self._socket.send(json.dumps({"type": kind, **fields}))

    def next(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self._socket.recv(timeout=10))
        return event

    def until(self, kind: str) -> dict[str, Any]:
        event = self.next()
        while event["type"] != kind:
            event = self.next()
        return event


@pytest.fixture
def session() -> Iterator[Realtime]:
    with (
        serve(Recorder()) as http,
        connect(url_of(http, "/v1/realtime?intent=transcription"), proxy=None) as socket,
    ):
        talk = Realtime(socket)
        assert talk.next()["type"] == "session.created"
        yield talk


COMPLETED = "conversation.item.input_audio_transcription.completed"


def test_without_turn_detection_the_client_commits(session: Realtime) -> None:
    session.send(
        "transcription_session.update",
        session={"input_audio_transcription": {"model": "tiny"}, "turn_detection": None},
    )
    assert session.next()["session"]["audio"]["input"]["turn_detection"] is None
    session.send("input_audio_buffer.append", audio=pcm24(sound(1.0, 2.0, 1.0, 1.0)))
    session.send("input_audio_buffer.commit")
    assert session.until(COMPLETED)["transcript"] == "utterance0"
    session.send("input_audio_buffer.commit")
    assert session.until(COMPLETED)["transcript"] == ""


def test_what_is_cleared_is_not_heard(session: Realtime) -> None:
    session.send("session.update", session={"type": "transcription", "turn_detection": None})
    session.send("input_audio_buffer.append", audio=pcm24(sound(1.0)))
    session.send("input_audio_buffer.clear")
    session.until("input_audio_buffer.cleared")
    session.send("input_audio_buffer.commit")
    assert session.until(COMPLETED)["transcript"] == ""


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "response.create"}, "invalid_request"),
        ({"type": "input_audio_buffer.append", "audio": "§"}, "invalid_field"),
        ({"type": "input_audio_buffer.append"}, "invalid_field"),
        ({"type": "session.update"}, "invalid_field"),
        ({"type": "session.update", "session": {"audio": 3}}, "invalid_field"),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"language": "xx"}}}},
            },
            "invalid_field",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"model": "nothing"}}}},
            },
            "model_not_found",
        ),
    ],
)
def test_a_bad_event_is_answered_and_the_session_goes_on(
    session: Realtime, event: dict[str, Any], code: str
) -> None:
    kind = event.pop("type")
    session.send(kind, event_id="e1", **event)
    answer = session.until("error")
    assert (answer["error"]["code"], answer["error"]["event_id"]) == (code, "e1")
    session.send("input_audio_buffer.append", audio=pcm24(sound(1.0, 1.0)))
    assert session.until(COMPLETED)["transcript"] == "utterance0"


@pytest.mark.parametrize("message", ["no JSON", '["a", "list"]', "3"])
def test_what_is_no_event_is_answered_too(message: str) -> None:
    path = "/v1/realtime?intent=transcription"
    with serve() as http, connect(url_of(http, path), proxy=None) as socket:
        talk = Realtime(socket)
        assert talk.next()["type"] == "session.created"
        socket.send(message)
        answer = talk.next()
        assert (answer["type"], answer["error"]["event_id"]) == ("error", None)
        assert answer["error"]["message"] == "every message must be a JSON object"


def test_a_full_server_says_so_and_closes() -> None:
    path = "/v1/realtime?intent=transcription"
    with serve(max_live_sessions=1) as http, connect(url_of(http, path), proxy=None) as first:
        first.recv(timeout=10)
        with connect(url_of(http, path), proxy=None) as second:
            answer = Realtime(second).next()
            assert (answer["type"], answer["error"]["code"]) == ("error", "queue_full")
            with pytest.raises(ConnectionClosedError):
                second.recv(timeout=10)
            assert second.close_code == 1013


def test_an_utterance_that_fails_does_not_end_the_session() -> None:
    failures = iter([ModelUnavailable("the disk is gone"), None])

    def pace() -> None:
        if error := next(failures):
            raise error

    engine = FakeEngine(says=(segment("one"),), pace=pace)
    with (
        serve(engine) as http,
        connect(url_of(http, "/v1/realtime?intent=transcription"), proxy=None) as socket,
    ):
        talk = Realtime(socket)
        talk.send("input_audio_buffer.append", audio=pcm24(sound(1.0, 1.0)))
        failed = talk.until("conversation.item.input_audio_transcription.failed")
        assert failed["error"]["message"] == "the disk is gone"
        talk.send("input_audio_buffer.append", audio=pcm24(sound(1.0, 1.0)))
        assert talk.until(COMPLETED)["transcript"] == "one"
