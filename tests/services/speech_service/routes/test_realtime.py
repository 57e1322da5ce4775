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

from ...harness import FakeEngine, segment, serve, wait_until
from ...spoken import Recorder, received, sound, url_of


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
    session.send("input_audio_buffer.append", audio=pcm24(sound(0.0, 0.5)))
    session.send("input_audio_buffer.commit")
    assert session.until(COMPLETED)["transcript"] == "", "silence was committed, and is answered"


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_a_commit_of_nothing_is_an_error(session: Realtime, seconds: float) -> None:
    session.send("session.update", session={"type": "transcription", "turn_detection": None})
    session.until("session.updated")
    session.send("input_audio_buffer.append", audio=pcm24(sound(seconds)))
    session.send("input_audio_buffer.commit", event_id="e7")
    error = session.next()["error"]
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "e7")
    session.send("input_audio_buffer.append", audio=pcm24(sound(0.1 - seconds)))
    session.send("input_audio_buffer.commit")
    assert session.until(COMPLETED)["transcript"] == "utterance0"


def test_what_is_cleared_is_not_heard(session: Realtime) -> None:
    session.send("session.update", session={"type": "transcription", "turn_detection": None})
    session.send("input_audio_buffer.append", audio=pcm24(sound(1.0)))
    session.send("input_audio_buffer.clear")
    session.until("input_audio_buffer.cleared")
    session.send("input_audio_buffer.commit")
    assert session.until("error")["error"]["code"] == "input_audio_buffer_commit_empty"


def updated(session: Realtime, **wanted: Any) -> dict[str, Any]:
    """What the service says to a change of the session's input."""
    session.send("session.update", session={"type": "transcription", "audio": {"input": wanted}})
    return session.next()


@pytest.mark.parametrize(
    ("wanted", "described"),
    [
        ({"type": "audio/pcm", "rate": 24_000}, {"type": "audio/pcm", "rate": 24_000}),
        ({"type": "audio/pcmu"}, {"type": "audio/pcmu"}),
        ({"type": "audio/pcma", "rate": 8_000}, {"type": "audio/pcma"}),
        ("g711_ulaw", {"type": "audio/pcmu"}),
        (None, {"type": "audio/pcm", "rate": 24_000}),
    ],
)
def test_a_format_that_is_confirmed_is_decoded(
    session: Realtime, wanted: Any, described: dict[str, Any]
) -> None:
    answer = updated(session, format=wanted)
    assert answer["type"] == "session.updated"
    assert answer["session"]["audio"]["input"]["format"] == described


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "audio/opus"},
        {"type": "audio/pcm", "rate": 16_000},
        {"type": "audio/pcmu", "rate": 16_000},
        {"type": "audio/pcm", "rate": "fast"},
        "mp3",
        ["audio/pcm"],
        7,
    ],
    ids=str,
)
def test_a_format_that_is_not_decoded_is_refused(session: Realtime, wanted: Any) -> None:
    error = updated(session, format=wanted)["error"]
    assert error["code"] == "invalid_field" and "format" in error["param"]
    session.send("input_audio_buffer.append", audio=pcm24(sound(1.0, 1.0)))
    assert session.until(COMPLETED)["transcript"] == "utterance0", "the format before still holds"


def test_a_client_may_change_its_mind_about_the_format(session: Realtime) -> None:
    session.send("session.update", session={"type": "transcription", "turn_detection": None})
    session.until("session.updated")
    for kind in ("pcm16", "g711_alaw", "pcm16"):
        flat = {"type": "transcription", "input_audio_format": kind}
        session.send("transcription_session.update", session=flat)
        session.until("session.updated")
        seconds = 48_000 if kind == "pcm16" else 8_000
        silence = base64.b64encode(bytes(seconds)).decode()
        session.send("input_audio_buffer.append", audio=silence)
        session.send("input_audio_buffer.commit")
        usage = session.until(COMPLETED)["usage"]
        assert usage["type"] == "duration"


def test_only_what_is_followed_is_confirmed(session: Realtime) -> None:
    answer = updated(
        session,
        transcription={"model": "whisper-1", "language": "German", "delay": "low"},
        turn_detection={"type": "server_vad", "threshold": 0.9, "silence_duration_ms": 300},
        noise_reduction={"type": "far_field"},
    )
    assert answer["session"]["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "transcription": {"model": "whisper-1", "language": "de"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
    }


@pytest.mark.parametrize("language", ["auto", "", None, "und"])
def test_a_session_without_a_language_detects_it(language: str | None) -> None:
    engine = Recorder()
    path = "/v1/realtime?intent=transcription"
    with serve(engine) as http, connect(url_of(http, path), proxy=None) as socket:
        talk = Realtime(socket)
        assert talk.next()["type"] == "session.created"
        wanted = {"language": language, "keywords": ["Zebra", "Gnu"], "model": ""}
        assert updated(talk, transcription=wanted)["type"] == "session.updated"
        talk.send("input_audio_buffer.append", audio=pcm24(sound(1.0, 1.0)))
        talk.until(COMPLETED)
    assert (engine.asked[0].language, engine.asked[0].hotwords) == (None, "Zebra, Gnu")


@pytest.mark.parametrize("turns", [{"type": "by_hand"}, "server_vad", []], ids=str)
def test_an_unknown_way_to_find_turns_is_refused(session: Realtime, turns: Any) -> None:
    assert "turn_detection" in updated(session, turn_detection=turns)["error"]["param"]


@pytest.mark.parametrize("model", ["nothing", "org/nothing"])
def test_a_session_for_an_unknown_model_is_refused_at_once(model: str) -> None:
    path = f"/v1/realtime?intent=transcription&model={model}"
    with serve() as http, connect(url_of(http, path), proxy=None) as socket:
        (answer,) = received(socket)
        assert (answer["type"], answer["error"]["code"]) == ("error", "model_not_found")
        assert socket.close_code == 1008
        assert "speech_live_sessions 0.0" in http.get("/metrics").text


def test_a_session_without_audio_ends_and_says_so() -> None:
    path = "/v1/realtime?intent=transcription"
    with serve(max_idle_seconds=0.5) as http, connect(url_of(http, path), proxy=None) as socket:
        talk = Realtime(socket)
        for _ in range(3):
            talk.send("session.update", session={"type": "transcription"})
        kinds = [(event["type"], event.get("error", {}).get("code")) for event in received(socket)]
        assert kinds[-1] == ("error", "session_expired")
        assert socket.close_code == 1000
        wait_until(lambda: "speech_live_sessions 0.0" in http.get("/metrics").text)


def test_a_session_ends_after_its_time_and_what_was_said_is_still_heard() -> None:
    path = "/v1/realtime?intent=transcription"
    with (
        serve(Recorder(), max_audio_seconds=1.0) as http,
        connect(url_of(http, path), proxy=None) as socket,
    ):
        talk = Realtime(socket)
        talk.send("input_audio_buffer.append", audio=pcm24(sound(1.5)))
        assert talk.until("error")["error"]["code"] == "session_expired"
        assert talk.until(COMPLETED)["transcript"] == "utterance0"


def test_a_failure_that_nobody_foresaw_is_told_before_the_socket_closes() -> None:
    class Broken(FakeEngine):
        def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
            raise RuntimeError("a secret")

    path = "/v1/realtime?intent=transcription"
    with serve(Broken()) as http, connect(url_of(http, path), proxy=None) as socket:
        Realtime(socket).send("input_audio_buffer.append", audio=pcm24(sound(1.0)))
        *_, answer = received(socket)
        assert answer["type"] == "error" and "secret" not in answer["error"]["message"]
        assert socket.close_code == 1011


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
