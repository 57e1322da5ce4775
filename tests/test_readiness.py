"""Probing against sockets that behave as badly as real programs while they start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from autostart_proxy import readiness
from autostart_proxy.backends import Upstream
from tests.ports import free_port

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LIMIT_SECONDS = 20


async def listen(port: int, *conversations: Conversation) -> tuple[asyncio.Server, list[int]]:
    """Serve each connection with the next conversation, the last one for ever after."""
    script = iter(conversations)
    seen = [0]

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen[0] += 1
        try:
            await next(script, conversations[-1])(reader, writer)
        finally:
            writer.close()

    return await asyncio.start_server(converse, "127.0.0.1", port), seen


def says(answer: bytes) -> Conversation:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return conversation


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def until_ready(port: int, path: str = "/", below: int = 500) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        await readiness.until_ready(
            Upstream("127.0.0.1", port), path=path, host="a.example", accepts=lambda s: s < below
        )


async def test_a_port_nobody_listens_on_is_tried_until_somebody_does() -> None:
    port = free_port()
    probing = asyncio.ensure_future(until_ready(port))
    await asyncio.sleep(0.05)
    assert not probing.done()
    server, _ = await listen(port, says(OK))
    await probing
    server.close()


@pytest.mark.parametrize(
    "first",
    [
        resets,
        hangs,
        says(b""),
        says(b"SSH-2.0-OpenSSH\r\n"),
        says(b"HTTP/1.1 503 no\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        says(b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\nContent-"),
        says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        says(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        says(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 no\r\n\r\n"),
    ],
    ids=[
        "reset",
        "silence",
        "empty",
        "another protocol",
        "a status that means not ready",
        "lines that end with LF",
        "a broken field",
        "ambiguous framing",
        "half a head",
        "a switch that nobody asked for",
        "an interim response alone",
        "an interim response before one that means not ready",
    ],
)
async def test_an_attempt_that_fails_is_followed_by_another(first: Conversation) -> None:
    port = free_port()
    server, seen = await listen(port, first, says(OK))
    await until_ready(port)
    assert seen[0] >= 2
    server.close()


async def test_any_status_that_is_accepted_means_ready() -> None:
    port = free_port()
    server, _ = await listen(port, says(b"HTTP/1.1 401 Unauthorized\r\n\r\n"))
    await until_ready(port)
    server.close()


async def test_a_head_may_come_in_pieces_and_after_interim_ones() -> None:
    port = free_port()

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)

    server, seen = await listen(port, in_pieces, hangs)
    await until_ready(port)
    server.close()


async def test_a_slow_first_answer_is_waited_for_and_not_buried_under_attempts() -> None:
    port = free_port()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.0)
        await says(OK)(reader, writer)

    server, seen = await listen(port, slow, hangs)
    await until_ready(port)
    assert seen[0] <= readiness.MAX_ATTEMPTS_OPEN
    server.close()


async def test_many_silent_attempts_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FIRST_HEDGE_SECONDS", 0.001)
    monkeypatch.setattr(readiness, "HEDGE_GROWTH", 1.0)
    port = free_port()
    server, seen = await listen(port, *[hangs] * 20, says(OK))
    await until_ready(port)
    assert seen[0] > readiness.MAX_ATTEMPTS_OPEN
    server.close()


async def test_the_probe_asks_for_the_configured_path_and_host() -> None:
    port = free_port()
    heads: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    server, _ = await listen(port, record)
    await until_ready(port, path="/health?deep=1")
    assert heads[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\nHost: a.example\r\n")
    server.close()


async def test_cancelling_leaves_no_connection_open() -> None:
    port = free_port()
    asked, gone = asyncio.Event(), asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        gone.set()

    server, _ = await listen(port, watch)
    probing = asyncio.ensure_future(until_ready(port))
    await asked.wait()
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing
    async with asyncio.timeout(LIMIT_SECONDS):
        await gone.wait()
    server.close()
