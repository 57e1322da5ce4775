"""A defect, wherever it is: each protocol says so in its own words; no client tries it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .harness import FakeEngine, serve
from .speech_service.routes.test_openai import file
from .speech_service.routes.test_realtime import pcm24
from .spoken import sound, url_of

GREETING = {"uid": "u1", "language": "en", "audio_format": "int16"}


class Broken(FakeEngine):
    """Fails in a way that nobody has foreseen."""

    def transcribe(self, audio: Any, options: Any) -> Any:
        self.asked.append(options)
        for _ in audio:
            raise RuntimeError("no position encodings")
        yield from ()


class Deaf(FakeEngine):
    """Fails before there is anything to transcribe."""

    def speech(self, samples: Any) -> Any:
        raise RuntimeError("not implemented")


def fws(socket: ClientConnection) -> None:
    socket.send(sound(1.0, 1.0).tobytes())


def whisper_live(socket: ClientConnection) -> None:
    socket.send(json.dumps(GREETING))
    fws(socket)
    socket.send("END_OF_AUDIO")


def realtime(socket: ClientConnection) -> None:
    audio = pcm24(sound(1.0, 1.0))
    socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))


PATHS: dict[Callable[[ClientConnection], None], str] = {
    fws: "/v1/audio/transcriptions",
    whisper_live: "/",
    realtime: "/v1/realtime?intent=transcription",
}


def told(socket: ClientConnection) -> tuple[list[Any], int | None]:
    """All messages until the server closes, and how it closes."""
    messages = []
    try:
        while True:
            messages.append(json.loads(socket.recv(timeout=20)))
    except ConnectionClosed as closed:
        return messages, closed.rcvd.code if closed.rcvd else None


def error_of(message: dict[str, Any]) -> str:
    """The text of an error in any of the protocols."""
    return str(message["error"]["message"] if "error" in message else message["message"])


@pytest.mark.parametrize("speak", PATHS, ids=lambda speak: speak.__name__)
def test_a_conversation_that_breaks_ends_with_the_protocols_own_error(
    speak: Callable[[ClientConnection], None], caplog: pytest.LogCaptureFixture
) -> None:
    with serve(Deaf()) as http, connect(url_of(http, PATHS[speak]), proxy=None) as socket:
        speak(socket)
        messages, code = told(socket)
        assert http.get("/health").status_code == 200
    assert code == 1011
    assert error_of(messages[-1]) == "the service failed; its log says why"
    assert "not implemented" in caplog.text
    if speak is whisper_live:
        assert (messages[-1]["uid"], messages[-1]["status"]) == ("u1", "ERROR")
    if speak is realtime:
        assert messages[-1]["type"] == "error"


@pytest.mark.parametrize("speak", [fws, whisper_live], ids=lambda speak: speak.__name__)
def test_an_utterance_that_breaks_ends_the_conversation_in_order(
    speak: Callable[[ClientConnection], None],
) -> None:
    with serve(Broken()) as http, connect(url_of(http, PATHS[speak]), proxy=None) as socket:
        speak(socket)
        messages, code = told(socket)
    assert (error_of(messages[-1]), code) == ("the service failed; its log says why", 1011)


def test_a_realtime_session_goes_on_after_an_utterance_that_broke() -> None:
    engine = Broken()
    with serve(engine) as http, connect(url_of(http, PATHS[realtime]), proxy=None) as socket:
        for _ in range(2):
            realtime(socket)
            failed: dict[str, Any] = {}
            while not str(failed.get("type")).endswith(".failed"):
                failed = json.loads(socket.recv(timeout=20))
            assert failed["error"]["code"] == "internal_error"


NESTED = "[" * 100_000


@pytest.mark.parametrize("text", ["{", NESTED, f'{{"uid": {NESTED}', '{"uid": "\\ud800"}', "3"])
@pytest.mark.parametrize("path", ["/", PATHS[realtime]])
def test_a_message_that_is_no_object_is_refused_and_not_a_defect(path: str, text: str) -> None:
    with serve() as http, connect(url_of(http, path), proxy=None) as socket:
        socket.send(text)
        messages = [json.loads(socket.recv(timeout=20)) for _ in range(1 if path == "/" else 2)]
    assert error_of(messages[-1]) == "every message must be a JSON object"


def test_a_binary_message_in_place_of_the_greeting_is_refused() -> None:
    with serve() as http, connect(url_of(http, "/"), proxy=None) as socket:
        socket.send(np.zeros(10, np.int16).tobytes())
        messages, code = told(socket)
    assert (messages[-1]["status"], code) == ("ERROR", 1008)


def test_the_official_client_asks_once_for_what_would_fail_again() -> None:
    engine = Broken()
    with serve(engine) as http:
        client = openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=2)
        with client, pytest.raises(openai.InternalServerError) as raised:
            client.audio.transcriptions.create(model="whisper-1", **file())
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert len(engine.asked) == 1


def test_a_field_that_is_nested_without_end_is_refused() -> None:
    with serve() as http:
        fields = {"chunking_strategy": '{"a":' * 100_000}
        answer: httpx.Response = http.post(PATHS[fws], files=file(), data=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "chunking_strategy")
