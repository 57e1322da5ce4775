"""WhisperLive's protocol, by hand."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
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
