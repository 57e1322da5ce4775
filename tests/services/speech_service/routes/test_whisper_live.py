"""WhisperLive's protocol, by hand."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from speech_service.contract.transcript import Segment
from websockets.sync.client import connect

from ...harness import FakeEngine, segment, serve, wait_until
from ...spoken import RATE, Recorder, received, sound, url_of

SAID = FakeEngine(says=(segment("one two"),))


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


@pytest.mark.parametrize(
    ("first", "uid"),
    [
        ("nonsense", ""),
        ("[]", ""),
        (b"\xff", ""),
        (greeting(task="sing", uid="u"), "u"),
        (greeting(audio_format="mp3", uid=7), 7),
        (greeting(language="xx", uid=["odd"]), ["odd"]),
        (greeting(send_last_n_segments="many", uid=None), None),
    ],
)
def test_a_bad_greeting_is_explained_to_who_sent_it(first: str | bytes, uid: Any) -> None:
    with serve() as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(first)
        (answer,) = received(socket)
        assert (answer["uid"], answer["status"]) == (uid, "ERROR")
        assert socket.close_code == 1008


@pytest.mark.parametrize("uid", [42, 1.5, True, None])
def test_every_message_carries_the_uid_as_it_was_sent(uid: Any) -> None:
    with serve(SAID) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting(uid=uid, audio_format="int16"))
        socket.send(sound(1.0).tobytes())
        socket.send("END_OF_AUDIO")
        told = [message["uid"] for message in received(socket)]
    assert len(told) >= 4 and all(one is uid or one == uid for one in told)


@pytest.mark.parametrize("language", ["auto", "", None, "und", "Undefined"])
def test_a_greeting_without_a_language_has_it_detected(language: str | None) -> None:
    engine = Recorder()
    with serve(engine) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting(language=language, audio_format="Int16", hotwords=["Zebra", "Gnu"]))
        socket.send(sound(1.0).tobytes())
        socket.send("END_OF_AUDIO")
        assert {"uid": "u1", "language": "fr", "language_prob": 0.9} in list(received(socket))
    assert (engine.asked[0].language, engine.asked[0].hotwords) == (None, "Zebra, Gnu")


def test_bytes_are_samples_too() -> None:
    samples = (sound(1.0) // 256 + 128).astype(np.uint8)
    with serve(SAID) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting(audio_format="uint8"))
        socket.send(samples.tobytes())
        socket.send(b"END_OF_AUDIO")
        heard = [message["segments"] for message in received(socket) if "segments" in message]
    assert heard[-1][-1]["text"] == " one two"


def kept(messages: list[dict[str, Any]]) -> list[str]:
    """The texts that WhisperLive's client has in the end, by its rules."""
    transcript: list[dict[str, Any]] = []
    unfinished: dict[str, Any] | None = None
    for message in messages:
        shown: list[str] = []
        for part in message.get("segments", ()):
            if shown and shown[-1] == part["text"]:
                continue
            shown.append(part["text"].strip())
            if not part["completed"] and part is message["segments"][-1]:
                unfinished = part
            elif part["completed"] and (
                not transcript or float(part["start"]) >= float(transcript[-1]["end"])
            ):
                transcript.append(part)
    if unfinished and (not transcript or transcript[-1]["text"] != unfinished["text"]):
        transcript.append(unfinished)
    return [part["text"].strip() for part in transcript]


class Script(FakeEngine):
    """Hears one thing after the other, whatever is said; nothing any more at the end."""

    def __init__(self, *heard: tuple[Segment, ...]) -> None:
        super().__init__()
        self._heard = iter(heard)

    def transcribe(self, audio: Any, options: Any) -> Any:
        self.says = next(self._heard, ())
        yield from super().transcribe(audio, options)


@pytest.mark.parametrize(
    ("heard", "final"),
    [
        ([(segment("wrong"),), (segment("right"),)], ["right"]),
        ([(segment("ghost"),), ()], [""]),
        ([(segment("a"), segment("b", 0.5)), (segment("c"), segment("d", 0.5))], ["c", "d"]),
        ([(), (segment("same"), segment("same", 0.5))], ["same", "same"]),
        ([(), (segment("one two"), segment("three", 0.6))], ["one two", "three"]),
    ],
    ids=["changed", "taken back", "of several segments", "said twice", "overlapping"],
)
@pytest.mark.parametrize("last_n", [10, 1, 0, -1])
def test_the_client_ends_with_what_was_completed_and_nothing_else(
    heard: list[tuple[Segment, ...]], final: list[str], last_n: int
) -> None:
    with serve(Script(*heard)) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting(language="en", audio_format="int16", send_last_n_segments=last_n))
        socket.recv(timeout=10)
        socket.send(sound(1.2).tobytes())
        wait_until(lambda: "speech_jobs_running 0.0" in http.get("/metrics").text)
        time.sleep(0.5)
        socket.send("END_OF_AUDIO")
        messages = list(received(socket))
    assert kept(messages) == final


def test_a_client_that_is_idle_gives_its_place_back() -> None:
    with serve(SAID, max_idle_seconds=0.5) as http:
        for first in (greeting(), None):
            with connect(url_of(http, "/"), proxy=None) as socket:
                if first:
                    socket.send(first)
                *_, last = received(socket)
                assert last.get("message") == "DISCONNECT" or last["status"] == "ERROR"
        assert "speech_live_sessions 0.0" in http.get("/metrics").text


def test_a_failure_that_nobody_foresaw_is_told_before_the_socket_closes() -> None:
    class Broken(FakeEngine):
        def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
            raise RuntimeError("a secret")

    with serve(Broken()) as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(greeting(audio_format="int16"))
        socket.send(sound(1.0).tobytes())
        *_, answer = received(socket)
        assert answer == {
            "uid": "u1",
            "status": "ERROR",
            "message": "the service failed; its log says why",
        }
        assert socket.close_code == 1011


def test_a_client_that_leaves_before_its_greeting_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serve() as http:
        with connect(url_of(http, "/"), proxy=None):
            pass
        time.sleep(0.2)
        assert http.get("/health").status_code == 200
    assert "failed" not in caplog.text


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
