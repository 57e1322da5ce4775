"""Live speech: where utterances end, and what each protocol makes of them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from speech_service.contract.errors import ModelUnavailable
from speech_service.media.audio import StreamResampler
from speech_service.media.utterances import Pace, Utterance, utterance
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ...harness import FakeEngine, segment, serve, wait_until

RATE = 16_000
PADDING = int(0.3 * RATE)
SAID = FakeEngine(says=(segment("one two"),))


def at(seconds: float) -> int:
    return int(seconds * RATE)


def speech(*stretches: tuple[float, float]) -> list[tuple[int, int]]:
    return [(at(start), at(end)) for start, end in stretches]


def test_nobody_speaks() -> None:
    assert utterance([], at(3), Pace(), ended=True) is None


def test_a_pause_ends_an_utterance() -> None:
    found = utterance(speech((0.5, 2.0), (3.0, 4.0)), at(4), Pace(), ended=False)
    assert found == Utterance(at(0.5), at(2.0), at(2.0) + PADDING, True)


def test_a_short_gap_does_not() -> None:
    found = utterance(speech((0.5, 2.0), (2.3, 4.0)), at(4.1), Pace(), ended=False)
    assert found == Utterance(at(0.5), at(4.0), at(4.1), False)


def test_quiet_at_the_end_is_a_pause() -> None:
    found = utterance(speech((0.5, 2.0)), at(2.5), Pace(), ended=False)
    assert found == Utterance(at(0.5), at(2.0), at(2.0) + PADDING, True)


def test_the_end_of_the_audio_ends_an_utterance() -> None:
    found = utterance(speech((0.5, 2.0)), at(2.1), Pace(), ended=True)
    assert found == Utterance(at(0.5), at(2.0), at(2.1), True)


def test_the_client_alone_decides_where_pauses_mean_nothing() -> None:
    pace = Pace(endpoints=False, longest=60)
    stretches = speech((0.5, 2.0), (9.0, 10.0))
    found = utterance(stretches, at(20), pace, ended=False)
    assert found is not None and not found.over
    found = utterance(stretches, at(20), pace, ended=True)
    assert found == Utterance(at(0.5), at(10.0), at(10.0) + PADDING, True)


def test_too_long_an_utterance_is_cut_in_its_last_short_gap() -> None:
    found = utterance(speech((0.0, 12.0), (12.2, 17.0)), at(17), Pace(), ended=False)
    assert found == Utterance(0, at(12.0), at(12.1), True)


def test_without_a_gap_it_is_cut_where_it_is_too_long() -> None:
    found = utterance(speech((1.0, 17.0)), at(17), Pace(), ended=False)
    assert found == Utterance(at(1), at(16), at(16), True)


def sound(*lengths: float) -> NDArray[np.int16]:
    """Speech and silence in turns, beginning with speech; lengths in seconds."""
    rng = np.random.default_rng(0)
    parts = [
        rng.integers(-5000, 5000, at(length)) if number % 2 == 0 else np.zeros(at(length))
        for number, length in enumerate(lengths)
    ]
    return np.concatenate(parts).astype(np.int16)


def url_of(http: httpx.Client, path: str) -> str:
    return str(http.base_url).replace("http", "ws") + path


def received(socket: ClientConnection) -> Iterator[Any]:
    """Every message until the server closes."""
    try:
        while True:
            text = socket.recv(timeout=20)
            yield json.loads(text)
    except ConnectionClosed:
        return


class Recorder(FakeEngine):
    """Says one word per recording, so that utterances can be told apart."""

    def transcribe(self, audio: Any, options: Any) -> Any:
        number = len(self.asked)
        self.says = (segment(f"utterance{number}", 0.3),)
        yield from super().transcribe(audio, options)


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


def greeting(**fields: Any) -> str:
    standard = {"uid": "u1", "language": None, "task": "transcribe", "model": "small"}
    return json.dumps(standard | {"use_vad": True, "hotwords": None} | fields)


def as_floats(samples: NDArray[np.int16]) -> bytes:
    return (samples.astype(np.float32) / 32768).tobytes()


def test_whisper_live_hears_everything_up_to_the_end_of_the_audio() -> None:
    engine = Recorder()
    with serve(engine) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting())
        assert json.loads(socket.recv(timeout=10)) == {
            "uid": "u1",
            "message": "SERVER_READY",
            "backend": "faster_whisper",
        }
        samples = sound(1.0, 1.0, 1.5)
        for start in range(0, len(samples), 4096):
            socket.send(as_floats(samples[start : start + 4096]))
        socket.send(b"END_OF_AUDIO")
        messages = list(received(socket))
    assert messages[0] == {"uid": "u1", "language": "fr", "language_prob": 0.9}
    assert messages[-1] == {"uid": "u1", "message": "DISCONNECT"}
    final = messages[-2]["segments"]
    assert [part["text"].strip() for part in final if part["completed"]] == [
        segment["text"].strip() for segment in final
    ]
    assert final[0] == {
        "start": "0.300",
        "end": "0.800",
        "text": final[0]["text"],
        "completed": True,
    }
    # 0.3 s of the quiet before the second utterance are kept, and its word follows 0.3 s later.
    assert float(final[-1]["start"]) == pytest.approx(2.0, abs=0.05)


def test_whisper_live_shows_words_while_somebody_speaks() -> None:
    with serve(SAID) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting(language="en", audio_format="int16"))
        socket.recv(timeout=10)
        for _ in range(20):
            socket.send(sound(0.1).tobytes())
            time.sleep(0.02)
        shown = json.loads(socket.recv(timeout=10))
        while "segments" not in shown:
            shown = json.loads(socket.recv(timeout=10))
        assert shown["segments"][-1]["completed"] is False
        socket.send("END_OF_AUDIO")
        assert [part["segments"] for part in received(socket) if "segments" in part][-1][-1][
            "completed"
        ]


def test_audio_that_stops_coming_ends_the_utterance() -> None:
    with serve(SAID) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting(audio_format="int16"))
        socket.recv(timeout=10)
        socket.send(sound(1.0).tobytes())
        segments: list[dict[str, Any]] = []
        while not (segments and segments[-1]["completed"]):
            segments = json.loads(socket.recv(timeout=10)).get("segments", [])
        assert segments[-1]["text"] == " one two"


def test_a_full_server_tells_a_whisper_live_client_to_wait() -> None:
    with serve(max_live_sessions=1) as http, connect(url_of(http, "/"), proxy=None) as first:
        first.send(greeting())
        first.recv(timeout=10)
        with connect(url_of(http, "/"), proxy=None) as second:
            second.send(greeting(uid="u2"))
            (answer,) = received(second)
            assert answer == {"uid": "u2", "status": "WAIT", "message": 1}
            assert second.close_code == 1013
        first.close()
        wait_until(lambda: "speech_live_sessions 0.0" in http.get("/metrics").text)


@pytest.mark.parametrize("first", ["nonsense", "[]", json.dumps({"task": "sing", "uid": "u"})])
def test_a_bad_greeting_is_explained(first: str) -> None:
    with serve() as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(first)
        (answer,) = received(socket)
        assert answer["status"] == "ERROR"
        assert socket.close_code == 1008


def test_numbers_that_are_none_do_no_harm() -> None:
    with serve(SAID) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting())
        socket.recv(timeout=10)
        socket.send(np.full(RATE, np.nan, np.float32).tobytes() + b"odd")
        socket.send(b"END_OF_AUDIO")
        assert list(received(socket)) == [{"uid": "u1", "message": "DISCONNECT"}]


def test_a_client_that_leaves_frees_its_session() -> None:
    engine = FakeEngine(pace=lambda: time.sleep(0.05), says=tuple(segment("a") for _ in range(99)))
    with serve(engine) as http:
        with connect(url_of(http, "/"), proxy=None) as socket:
            socket.send(greeting(audio_format="int16"))
            socket.recv(timeout=10)
            socket.send(sound(1.0, 1.0).tobytes())
            wait_until(lambda: engine.decoded > 0)
        wait_until(lambda: "speech_live_sessions 0.0" in http.get("/metrics").text)
        wait_until(lambda: "speech_jobs_running 0.0" in http.get("/metrics").text, 3)


def pcm24(samples: NDArray[np.int16]) -> str:
    """Samples at 16 kHz as the base64 of 24 kHz, every second one repeated."""
    index = np.arange(len(samples) * 3 // 2) * 2 // 3
    return base64.b64encode(samples[index].tobytes()).decode()


def test_resampling_keeps_length_and_tone() -> None:
    times = np.arange(24_000) / 24_000
    tone = (np.sin(times * 2 * np.pi * 440) * 10_000).astype(np.int16)
    resampler = StreamResampler(24_000)
    found = np.concatenate([resampler.convert(part) for part in np.array_split(tone, 37)])
    assert len(found) == pytest.approx(16_000, abs=64)
    spectrum = np.abs(np.fft.rfft(found))
    assert int(spectrum.argmax() * 16_000 / len(found)) == pytest.approx(440, abs=3)


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
