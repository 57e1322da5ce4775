"""Scripted peers for the relay: a client and a service that send and expect raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

import pytest

from autostart_proxy.errors import ProxyError, Starting
from autostart_proxy.relay.peers import Lease
from autostart_proxy.relay.server import Server
from autostart_proxy.relay.upstream import Address
from autostart_proxy.status import ServiceStatus
from autostart_proxy.wire.heads import HEAD_LIMIT_BYTES
from tests.fakes import logging_journal

PATIENCE_SECONDS = 60.0
HOST = "a.example"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str = "/", *lines: str, host: str = HOST) -> bytes:
    """A GET request without a body."""
    head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", f"Host: {host}", *lines))
    return head.encode() + b"\r\n"


@dataclass
class Message:
    """A head with its lines in order, and what came behind it."""

    first: bytes
    fields: list[tuple[str, str]]
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        [value] = self.all(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))


def read_message(head: bytes) -> Message:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = [line.decode("latin-1").split(":", 1) for line in lines]
    return Message(first, [(name, value.strip()) for name, value in pairs])


class Line:
    """One end of a connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.writer.drain()

    async def head(self) -> Message:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return read_message(await self.reader.readuntil(b"\r\n\r\n"))

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readexactly(size)

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Everything up to a proper end of the stream; raises if it is reset."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()

    async def until_gone(self) -> bytes:
        """Everything up to the end, proper or not."""
        got = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while more := await self.reader.read(65536):
                    got += more
        return got

    async def answer(self, *, head_only: bool = False) -> Message:
        """One answer with its body."""
        message = await self.head()
        if head_only or message.status in (204, 304) or message.status < 200:
            return message
        if message.all("transfer-encoding") == ["chunked"]:
            while size := int(await self.until(b"\r\n"), 16):
                message.body += (await self.exactly(size + 2))[:-2]
            assert await self.until(b"\r\n") == b"\r\n"
        elif "content-length" in message:
            message.body = await self.exactly(int(message["content-length"]))
        else:
            message.body = await self.rest()
        return message

    async def silent(self, seconds: float = 0.15) -> bool:
        """Whether nothing arrives for a moment."""
        try:
            async with asyncio.timeout(seconds):
                return not await self.reader.read(1) and False
        except TimeoutError:
            return True

    def close(self) -> None:
        self.writer.close()

    def shut_down(self) -> None:
        """End the stream this instant, not when the event loop comes to it."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        if not self.writer.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class ScriptedUpstream:
    """A service that says what the test tells it to, or what its script does."""

    def __init__(self, script: Callable[[Line], Coroutine[Any, Any, None]] | None = None) -> None:
        self.script = script
        self.count = 0
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self._all: list[Line] = []
        self.server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, backlog=1024, limit=2 * HEAD_LIMIT_BYTES
        )
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        assert self.server is not None
        self.server.close()
        for line in self._all:
            line.writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        self.count += 1
        self._all.append(line)
        if self.script is None:
            self._lines.put_nowait(line)
            return
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.script(line)

    async def next(self) -> Line:
        """The next connection that the relay opens."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._lines.get()

    @property
    def unclaimed(self) -> int:
        return self._lines.qsize()


@dataclass
class Config:
    name: str = "A <service>"
    blocking: bool | Literal["auto"] = True
    max_body: int | None = None
    response_timeout: float | None = None
    body_timeout: float | None = 30.0


@dataclass
class StandInService:
    """Admits, holds and refuses as told, and checks that every lease departs exactly once."""

    address: Address
    host: str = HOST
    config: Config = field(default_factory=Config)
    ready: bool = True
    held: list[Lease] = field(default_factory=list)
    flowing: list[Lease] = field(default_factory=list)
    arrivals: int = 0
    returns: int = 0
    wakes: int = 0
    wake_answer: ProxyError | None = None
    admit_returned: bool = True
    told: dict[str, Any] = field(default_factory=dict)
    """What its status says other than usual."""

    def claim(self, lease: Lease) -> Address | None:
        self.arrivals += 1
        if self.ready:
            self.flowing.append(lease)
            return self.address
        self.held.append(lease)
        return None

    def depart(self, lease: Lease) -> None:
        (self.flowing if lease in self.flowing else self.held).remove(lease)

    def unreachable(self, lease: Lease) -> None:
        self.returns += 1
        self.flowing.remove(lease)
        if self.admit_returned:
            self.flowing.append(lease)
            lease.admitted(self.address)
        else:
            self.held.append(lease)

    def wake(self, cause: str) -> ProxyError:
        self.wakes += 1
        return self.wake_answer or Starting(retry_after_seconds=7)

    def status(self) -> ServiceStatus:
        usual = ServiceStatus(
            self.host, self.config.name, "ready" if self.ready else "starting",
            since_seconds=3.0, leases=0, held=0, last_start_seconds=None, why="",
            sleeps_in_seconds=None,
        )  # fmt: skip
        return replace(usual, **self.told)

    # For tests.

    def open(self) -> None:
        """Become ready and admit all who wait."""
        self.ready = True
        held, self.held = self.held, []
        for lease in held:
            self.flowing.append(lease)
            lease.admitted(self.address)

    def refuse(self, error: ProxyError) -> None:
        held, self.held = self.held, []
        for lease in held:
            lease.refused(error)

    async def until(self, condition: Callable[[StandInService], bool]) -> None:
        await until(lambda: condition(self))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens within this process."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class Relay:
    """A server in front of one scripted service."""

    server: Server
    service: StandInService
    upstream: ScriptedUpstream
    address: str
    lines: list[Line] = field(default_factory=list)

    async def client(self) -> Line:
        if self.address.startswith("unix:"):
            ends = await asyncio.open_unix_connection(self.address.removeprefix("unix:"))
        else:
            host, _, port = self.address.rpartition(":")
            ends = await asyncio.open_connection(host, int(port))
        line = Line(*ends)
        self.lines.append(line)
        return line

    async def exchange(self, request: bytes, answer: bytes = OK) -> tuple[Message, Message]:
        """One request without a body on connections of its own: what the service saw, and what
        the client got."""
        client = await self.client()
        await client.send(request)
        line = await self.upstream.next()
        seen = await line.head()
        await line.send(answer)
        line.close()
        got = await client.answer()
        client.close()
        return seen, got

    async def refused(self, request: bytes) -> Message:
        """The proxy's own answer to a request, after which it must close in good order."""
        client = await self.client()
        await client.send(request)
        got = await client.answer()
        assert await client.rest() == b""
        client.close()
        return got


@contextlib.asynccontextmanager
async def relaying(
    *,
    script: Callable[[Line], Coroutine[Any, Any, None]] | None = None,
    listen: str = "127.0.0.1:0",
    trusted: tuple[str, ...] = ("127.0.0.1",),
    config: Config | None = None,
) -> AsyncIterator[Relay]:
    """Bring up a relay; at the end no lease may be left and a good request must still work."""
    async with ScriptedUpstream(script) as upstream:
        service = StandInService(("127.0.0.1", upstream.port), config=config or Config())
        server = Server(
            lambda host: service if host == service.host else None,
            logging_journal(),
            trusted_proxies=trusted,
        )
        relay = Relay(server, service, upstream, await server.listen(listen))
        try:
            yield relay
            await service.until(lambda s: not s.held and not s.flowing)
            if script is None:
                await still_serves(relay)
        finally:
            for line in relay.lines:
                line.writer.transport.abort()
            await server.close(0)
        assert not server.connections


async def still_serves(relay: Relay) -> None:
    """After every case: the next good request gets its answer."""
    relay.service.ready = True
    relay.service.config.max_body = None
    relay.server.pool.close()  # what the test left idle has nobody at its other end
    client = await relay.client()
    await client.send(get("/afterwards", "Connection: close"))
    while True:
        line = await relay.upstream.next()
        try:
            if b"/afterwards" in (await line.head()).first:
                break
        except (ConnectionError, asyncio.IncompleteReadError):
            continue  # a connection of the test itself
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    client.close()


def access_log(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What was logged of the requests that have ended; needs level INFO."""
    return [vars(each) for each in caplog.records if each.name == "autostart_proxy.access"]


def answering(answer: bytes = OK) -> Callable[[Line], Coroutine[Any, Any, None]]:
    """A script: the same answer to every request without a body."""

    async def script(line: Line) -> None:
        while True:
            await line.head()
            await line.send(answer)

    return script
