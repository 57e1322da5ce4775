"""Connections to services: opened, used by one exchange at a time, kept for the next.

Whether a connection may be used again is decided by the exchange that used it; see `exchange`.
Here it waits, watched: a byte or an end that nobody asked for closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from time import monotonic
from typing import Final, Protocol

from autostart_proxy import errors
from autostart_proxy.relay.connection import Connection
from autostart_proxy.relay.turns import BULK_BYTES, Turns
from autostart_proxy.wire.framing import Framer
from autostart_proxy.wire.responses import ResponseReader

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 5.0
"""How long the last bytes of a connection may take before it is aborted."""

IDLE_SECONDS = 4.0
"""Common servers close an idle connection after 5 s (Node, uvicorn): be first."""

IDLE_LIMIT = 256
"""Idle connections kept per service."""

LAST_WORDS_LIMIT_BYTES = 1024 * 1024

Address = tuple[str, int]


class User(Protocol):
    """Who uses a connection: an exchange, or its tunnel."""

    def upstream_data(self, data: bytes) -> None:
        """Take in what the service sent; b"" to go on with what was left for later.

        Raises:
            BadUpstream: it is not HTTP; `fail` has to follow.
        """
        ...

    def upstream_ended(self) -> bool:
        """The service sends no more; returns whether it may still be written to."""
        ...

    def upstream_lost(self, clean: bool) -> None:
        """The connection is gone; `clean` if it was closed in good order."""
        ...

    def upstream_writable(self, writable: bool) -> None:
        """The service's write buffer has emptied, or is full."""
        ...

    def fail(self, error: errors.ProxyError) -> None:
        """End, with an answer of the proxy's own if none has begun."""
        ...


class Caller(Protocol):
    """Who waits for a connection to be made."""

    def connected(self, upstream: UpstreamConnection) -> None: ...
    def not_connected(self, cause: OSError) -> None: ...


class UpstreamConnection(Connection):
    """One connection to a service, in use by at most one exchange.

    Attributes:
        served: how many exchanges it has completed.
        idle_since: monotonic seconds; meaningful while it is in the pool.
    """

    __slots__ = (
        "_clean",
        "_poll",
        "_pool",
        "_spare",
        "address",
        "exchange",
        "framer",
        "idle_since",
        "reader",
        "served",
    )

    def __init__(self, pool: Pool, address: Address) -> None:
        super().__init__(pool.turns)
        self._pool = pool
        self.address = address
        self.exchange: User | None = None
        self.idle_since = 0.0
        self.served = 0
        self._spare: int | None = None
        self.reader: Final = ResponseReader()
        self.framer: Final = Framer()
        self._poll = select.poll()
        self._clean = False

    def __repr__(self) -> str:
        doing = repr(self.exchange) if self.exchange is not None else "idle"
        return f"<UpstreamConnection {self.address[0]}:{self.address[1]}, {doing}>"

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    def is_silent(self) -> bool:
        """Ask the kernel whether nothing has arrived, the end of the stream included."""
        return not self._poll.poll(0)

    def keep_last_words(self) -> None:
        """Prepare for a service that answers and closes while it is still being written to.

        Its reset makes the next write fail, and the event loop then throws away the connection
        with the answer unread. The kernel still has it, and a second descriptor can read it.
        """
        with contextlib.suppress(OSError):  # out of descriptors: do without
            self._spare = os.dup(self._transport.get_extra_info("socket").fileno())

    def _read_last_words(self) -> bytes:
        words = b""
        if self._spare is not None:
            with contextlib.suppress(OSError):
                while len(words) < LAST_WORDS_LIMIT_BYTES and (more := os.read(self._spare, 65536)):
                    words += more
        self._forget_last_words()
        return words

    def _forget_last_words(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def release(self) -> None:
        """Become idle."""
        self.exchange = None
        self._forget_last_words()
        if self.pauses:
            self.pauses = 0
            self._transport.resume_reading()
        self.served += 1
        self.idle_since = monotonic()

    def drop(self) -> None:
        """Close at once, whatever is still to be written or read."""
        self.exchange = None
        self._forget_last_words()
        self._transport.abort()

    def close(self) -> None:
        """Close once all is written."""
        self.exchange = None
        self._forget_last_words()
        self._pool.await_end(self)
        self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if len(data) >= BULK_BYTES:
            self.read_in_bulk(len(data))
        exchange = self.exchange
        if exchange is None:
            self._pool.forget(self)
            self._transport.abort()
            return
        try:
            exchange.upstream_data(data)
        except errors.ProxyError as error:
            exchange.fail(error)

    def eof_received(self) -> bool:
        self._clean = True
        return self.exchange is not None and self.exchange.upstream_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._catch_up_at_last()
        words = self._read_last_words()
        if words and exc is not None:
            self.data_received(words)
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self._pool.forget(self)
        else:
            exchange.upstream_lost(clean=self._clean and exc is None)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(False)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(True)


class Pool:
    """Idle connections to services, the latest used first.

    Args:
        turns: in which they are read, with all others.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns: Final = turns
        self._idle: dict[Address, list[UpstreamConnection]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._closing: dict[UpstreamConnection, float] = {}

    def __repr__(self) -> str:
        idle = sum(map(len, self._idle.values()))
        return f"<Pool {idle} idle, {len(self._connecting)} connecting>"

    def take(self, address: Address) -> UpstreamConnection | None:
        """Hand out an idle connection, or None.

        The kernel is asked first: what has arrived meanwhile would be taken for the answer to the
        next request, and a request that cannot be repeated must not meet a connection that ended.
        """
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.usable:
                if connection.is_silent():
                    return connection
                connection.drop()
        return None

    def connect(self, address: Address, exchange: Caller) -> None:
        """Open a connection; ends in `exchange.connected` or `exchange.not_connected`."""
        task = asyncio.get_running_loop().create_task(self._connect(address, exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, address: Address, exchange: Caller) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, address), *address
                )
        except OSError as cause:  # a TimeoutError is one
            exchange.not_connected(cause)
        else:
            exchange.connected(connection)

    def await_end(self, connection: UpstreamConnection) -> None:
        """See to it that a closing connection ends, even if the service reads no more."""
        self._closing[connection] = monotonic() + CLOSE_SECONDS

    def put(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose exchange is complete."""
        idle = self._idle.get(connection.address)
        if idle is None:
            idle = self._idle[connection.address] = []
        if not connection.usable or len(idle) >= IDLE_LIMIT:
            connection.drop()
            return
        connection.release()
        idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """An idle connection has ended by itself, or said something unasked."""
        self._closing.pop(connection, None)
        idle = self._idle.get(connection.address, [])
        if connection in idle:
            idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long."""
        for address, idle in list(self._idle.items()):
            while idle and now - idle[0].idle_since > IDLE_SECONDS:
                idle.pop(0).drop()
            if not idle:
                del self._idle[address]
        for connection, deadline in list(self._closing.items()):
            if now > deadline:
                del self._closing[connection]
                connection.drop()

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for connection in self._closing:
            connection.drop()
        self._closing.clear()
        for idle in self._idle.values():
            for connection in idle:
                connection.drop()
        self._idle.clear()
