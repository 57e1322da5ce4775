"""A connection that asks for little: its heads are short, come in time, and few wait in line.

The server's own limits begin with the end of a head, and its parser keeps what has no end yet: a
head or a trailer that goes on for ever, or a thousand requests sent at once, would take all memory,
and a thousand connections that dawdle the descriptors that everybody needs.
"""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 30.0
"""From a connection, or from the first byte of a further request on it, to the end of its head."""
HEAD_BYTES = 64 << 10
"""What a head may have, and whatever else comes between two pieces of a body."""
UNREAD_SECONDS = 120.0
"""How long a client may leave unread what it is sent, before the connection is cut."""
_MOST_WAITING = 16
"""Requests behind the one that is answered; who sends them without waiting can wait for those."""


class PatientProtocol(HttpToolsProtocol):
    """A connection of uvicorn's that closes where a client passes the limits of this module."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _idle_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a first head."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            # tcp(7): also where the client has left no room for what waits to be sent.
            patience = round(UNREAD_SECONDS * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._go_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has come; refuse it where the parser only ever keeps it."""
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request, or what is in its place, has no end.")

    def on_message_begin(self) -> None:
        """Begin to wait for the end of a head."""
        if len(self.pipeline) >= _MOST_WAITING:
            raise _Refused
        super().on_message_begin()
        self._head_bytes = 0
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of a head; none of what comes behind a body."""
        if self._timer is None:
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES:
            raise _Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on to the body, which has limits of its own."""
        self._go_on()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See `HttpToolsProtocol.on_body`."""
        self._idle_bytes = 0
        super().on_body(body)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _go_on(self) -> None:
        self._idle_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Refused(Exception):
    """Tells the parser to stop; the client is told that its request is invalid."""
