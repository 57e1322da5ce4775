"""Samples over a WebSocket, and both its directions at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from speech_service.contract.errors import InvalidField, QueueFull, SpeechError
from speech_service.http.sockets import (
    Connections,
    Inbox,
    SampleKind,
    converse,
    orderly,
    receive_samples,
    refuse,
)
from speech_service.work.live import LiveSession
from speech_service.work.places import Places
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

RATE = 16_000
MS = 0.001


class Session:
    """Hears samples and remembers them."""

    def __init__(self) -> None:
        self.heard: list[NDArray[np.int16]] = []
        self.ended = False

    @property
    def seconds(self) -> float:
        return sum(map(len, self.heard)) / RATE

    async def feed(self, samples: NDArray[np.int16]) -> None:
        self.heard.append(samples)

    def end(self) -> None:
        self.ended = True


class Socket:
    """What a client sends, and what it is told; silent once it has sent all."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.told: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.Event().wait()
        return {"type": "websocket.receive", **self.messages.pop(0)}

    async def send_text(self, text: str) -> None:
        self.told.append(text)

    async def close(self, code: int) -> None:
        self.told.append(code)


async def heard(
    socket: Socket, kind: SampleKind = "int16", limit: float = 100.0, patience: float = 60.0
) -> tuple[bool, Session]:
    session = Session()
    there = await receive_samples(
        Inbox(cast("WebSocket", socket)), cast("LiveSession", session), kind, limit, patience
    )
    return there, session


async def test_samples_may_be_cut_anywhere() -> None:
    data = np.arange(100, dtype="<i2").tobytes()
    parts = [{"bytes": data[:33]}, {"bytes": data[33:34]}, {"bytes": data[34:]}]
    there, session = await heard(Socket(*parts, {"text": "END_OF_AUDIO"}))
    assert np.array_equal(np.concatenate(session.heard), np.arange(100))
    assert there and session.ended


async def test_floats_are_clipped_and_what_is_no_number_is_silence() -> None:
    floats = np.array([0.5, 2.0, -2.0, np.nan, np.inf], np.float32).tobytes()
    _, session = await heard(Socket({"bytes": floats}, {"bytes": b"END_OF_AUDIO"}), "float32")
    assert session.heard[0].tolist() == [16383, 32767, -32767, 0, 32767]


async def test_bytes_are_samples_around_their_middle() -> None:
    _, session = await heard(
        Socket({"bytes": bytes([0, 128, 255])}, {"text": "END_OF_AUDIO"}), "uint8"
    )
    assert session.heard[0].tolist() == [-32768, 0, 127 * 256]


async def test_a_client_that_leaves_is_told_from_one_that_is_done() -> None:
    there, session = await heard(Socket({"type": "websocket.disconnect"}))
    assert not there and not session.ended


async def test_silence_on_the_wire_is_an_end_where_the_protocol_has_no_other() -> None:
    there, session = await heard(Socket({"bytes": b"\x01\x00"}), patience=10 * MS)
    assert there and session.ended
    assert session.heard[0].tolist() == [1]


async def test_what_is_no_audio_does_not_prolong_the_wait() -> None:
    class Chatty(Socket):
        async def receive(self) -> dict[str, Any]:
            await asyncio.sleep(5 * MS)
            return {"type": "websocket.receive", "text": "are you there?"}

    async with asyncio.timeout(5):
        there, session = await heard(Chatty(), patience=50 * MS)
    assert there and session.ended


async def test_nobody_speaks_for_longer_than_is_allowed() -> None:
    second = {"bytes": bytes(2 * RATE)}
    socket = Socket(second, second, second)
    there, session = await heard(socket, limit=2.0)
    assert there and session.ended
    assert len(socket.messages) == 1


async def test_the_sender_ends_the_conversation() -> None:
    cancelled = asyncio.Event()

    async def receiving() -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    async def sending() -> None:
        await asyncio.sleep(0)

    await converse(receiving(), sending())
    assert cancelled.is_set()


@pytest.mark.parametrize("waits", [True, False], ids=["done", "gone"])
async def test_what_is_left_is_said_to_who_still_waits(waits: bool) -> None:
    said: list[str] = []

    async def receiving() -> bool:
        return waits

    async def sending() -> None:
        await asyncio.sleep(1 * MS)
        said.append("the rest")

    await converse(receiving(), sending())
    assert said == (["the rest"] if waits else [])


async def test_a_client_that_left_while_it_was_told_is_no_failure() -> None:
    async def receiving() -> bool:
        return True

    async def sending() -> None:
        raise WebSocketDisconnect

    await converse(receiving(), sending())


async def test_a_failure_of_the_sender_comes_out() -> None:
    async def receiving() -> bool:
        return True

    async def sending() -> None:
        raise InvalidField("no", "file")

    with pytest.raises(InvalidField):
        await converse(receiving(), sending())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QueueFull("later", 1.0), 1013),
        (InvalidField("never", "x"), 1008),
        (SpeechError("ours"), 1011),
    ],
)
async def test_a_refusal_says_whether_to_come_back(error: SpeechError, code: int) -> None:
    socket = Socket()
    await refuse(cast("WebSocket", socket), "why", error)
    assert socket.told == ["why", code]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidField("no", "x"), ["no", 1008]),
        (RuntimeError("a secret"), ["the service failed; its log says why", 1011]),
        (WebSocketDisconnect(), []),
    ],
    ids=["foreseen", "unforeseen", "gone"],
)
async def test_whatever_ends_a_session_is_told_in_its_protocol(
    error: Exception, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    socket = Socket()

    async def session() -> None:
        async with orderly(cast("WebSocket", socket), lambda refusal: refusal.message):
            raise error

    await session()
    assert socket.told == told
    assert ("session failed" in caplog.text) is isinstance(error, RuntimeError)


async def test_what_comes_while_something_is_waited_for_is_kept_in_order() -> None:
    inbox = Inbox(cast("WebSocket", Socket({"text": "1"}, {"text": "2"}, {"text": "3"})))

    async def work() -> str:
        await asyncio.sleep(5 * MS)
        return "done"

    assert await inbox.meanwhile(work()) == "done"
    assert [(await inbox.receive())["text"] for _ in range(3)] == ["1", "2", "3"]


async def test_what_nobody_waits_for_any_more_ends() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    inbox = Inbox(cast("WebSocket", Socket({"text": "1"}, {"type": "websocket.disconnect"})))
    with pytest.raises(WebSocketDisconnect):
        await inbox.meanwhile(work())
    assert ended.is_set()


async def test_what_fails_while_it_is_waited_for_comes_out() -> None:
    async def work() -> None:
        raise InvalidField("no", "model")

    with pytest.raises(InvalidField):
        await Inbox(cast("WebSocket", Socket())).meanwhile(work())


async def test_only_so_much_is_kept_meanwhile() -> None:
    socket = Socket(*[{"text": "on and on"}] * 1000)

    async def work() -> None:
        await asyncio.sleep(50 * MS)

    await Inbox(cast("WebSocket", socket)).meanwhile(work())
    assert len(socket.messages) > 900


async def test_a_handshake_beyond_the_limit_is_refused_and_others_are_let_in() -> None:
    let_in: list[str] = []
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        let_in.append(scope["type"])

    async def send(message: Message) -> None:
        told.append(message)

    places = Places(1, "live connections are open", "MAX_LIVE_SESSIONS", 60.0)
    connections = Connections(app, places)
    receive = Socket().receive
    await connections({"type": "websocket"}, receive, send)
    with places.one():
        await connections({"type": "websocket"}, receive, send)
        await connections({"type": "http"}, receive, send)
    assert let_in == ["websocket", "http"]
    assert told[0]["status"] == 429
    assert (b"retry-after", b"60") in told[0]["headers"]
    assert b"MAX_LIVE_SESSIONS" in told[1]["body"]
