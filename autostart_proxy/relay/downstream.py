"""One client's connection: the straight line of a request.

head -> host -> service -> limits -> lease -> exchange -> one line in the access log.

Rules:

- Requests of one connection are answered one after the other; what comes early waits, and while
  more than a little waits the client is not read.
- A request that is refused before its body was read to the end ends the connection. The answer is
  sent first, and what still comes is read and forgotten for a moment: a connection closed with
  unread bytes is reset, and the client could not read the answer.
- Time limits cost nothing per request: the server's sweep asks every connection (`check_time`).
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from time import monotonic
from typing import Final, Protocol, cast

from autostart_proxy import errors, logs
from autostart_proxy.relay.exchange import HELD, PIPELINED, UPSTREAM_FULL, Exchange, Service, Stage
from autostart_proxy.relay.upstream import WRITE_BUFFER_BYTES, Pool
from autostart_proxy.wire import own_responses
from autostart_proxy.wire.grammar import find_field
from autostart_proxy.wire.requests import Request, RequestReader

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75.0
STALL_SECONDS = 60.0
"""How long a body may make no progress, in either direction."""

LINGER_SECONDS = 5.0
PIPELINED_LIMIT_BYTES = 64 * 1024

_ON_THE_WAY = frozenset({"starting", "adopting"})
_EMPTY_LINES = re.compile(rb"(?:\r\n)++")


class Server(Protocol):
    """What a connection asks of the server it belongs to."""

    @property
    def pool(self) -> Pool: ...
    @property
    def draining(self) -> bool: ...
    def find(self, host: str, /) -> Service | None: ...
    def trusts(self, peer: bytes, /) -> bool: ...
    def new_request_id(self) -> bytes: ...
    def joined(self, connection: ClientConnection) -> None: ...
    def left(self, connection: ClientConnection) -> None: ...


class ClientConnection(asyncio.Protocol):
    """One client, and the requests it sends one after the other."""

    __slots__ = (
        "_begun_at",
        "_buffer",
        "_closing",
        "_deadline",
        "_head_begun",
        "_peer",
        "_progress",
        "_progress_at",
        "_pumping",
        "_reader",
        "_server",
        "_transport",
        "exchange",
        "pauses",
        "write",
        "write_paused",
    )

    def __init__(self, server: Server) -> None:
        self._server: Final = server
        self.exchange: Exchange | None = None
        self.write_paused = False
        self._buffer = b""
        self._begun_at = 0.0
        self._head_begun = False
        self._closing = False
        self.pauses = 0
        self._pumping = False
        self._deadline = monotonic() + HEAD_SECONDS
        self._progress: tuple[int, int] = (0, 0)
        self._progress_at = self._deadline

    def __repr__(self) -> str:
        doing = "closing" if self._closing else repr(self.exchange or "between requests")
        return f"<ClientConnection {self._peer.decode() or 'unix'}, {doing}>"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        name = transport.get_extra_info("peername")
        self._peer = name[0].encode() if isinstance(name, tuple) else b""
        self._reader = RequestReader(peer=self._peer, trusted=self._server.trusts(self._peer))
        self._server.joined(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self._closing:
                return
            if self._buffer:
                self._buffer += data
            else:
                self._buffer = data
                self._begun_at = monotonic()
            self._pump()
        elif exchange.takes_client_data:
            try:
                exchange.client_data(data)
            except errors.ProxyError as error:
                exchange.fail(error)
        else:
            self.keep(data)

    def eof_received(self) -> bool:
        return self.exchange is not None and self.exchange.client_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._server.left(self)
        if self.exchange is not None:
            self.exchange.client_gone()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.client_writable(False)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.client_writable(True)
        else:
            self._pump()

    # For the exchange.

    @property
    def keeps_alive(self) -> bool:
        return not self._server.draining

    def write_eof(self) -> None:
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def pause(self, why: int) -> None:
        if not self.pauses and not self._transport.is_closing():
            self._transport.pause_reading()
        self.pauses |= why

    def resume(self, why: int) -> None:
        if self.pauses & why:
            self.pauses &= ~why
            if not self.pauses and not self._transport.is_closing():
                self._progress_at = monotonic()
                self._transport.resume_reading()

    def keep(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > PIPELINED_LIMIT_BYTES:
            self.pause(PIPELINED)

    def refuse(
        self, error: errors.ProxyError, request: Request, request_id: bytes, *, close: bool
    ) -> None:
        self._write_error(
            error,
            request_id.decode(),
            accept=request.field(b"accept"),
            head_only=request.method == b"HEAD",
            close=close,
        )

    def over(self, exchange: Exchange, *, keep_alive: bool, request_read: bool) -> None:
        self.exchange = None
        logs.request(
            service=exchange.service.host,
            method=exchange.request.method.decode(),
            status=exchange.status,
            bytes_in=exchange.bytes_in,
            bytes_out=exchange.bytes_out,
            held_ms=((exchange.admitted_at or exchange.ended) - exchange.arrived) * 1e3,
            total_ms=(exchange.ended - exchange.begun_at) * 1e3,
            request_id=exchange.request_id.decode(),
            client=exchange.request.fields.client.decode() or "unix",
            error_tag=exchange.error_tag,
        )
        if self._closing:
            return
        if not keep_alive:
            self._close(linger=not request_read or bool(self._buffer))
            return
        if self._server.draining and not self._buffer:
            # The answer had begun before the end was known, so it could not announce it.
            self._close(linger=False)
            return
        self._deadline = exchange.ended + KEEP_ALIVE_SECONDS
        if self.pauses:
            self.resume(HELD | UPSTREAM_FULL)
        if self._buffer:
            self._begun_at = exchange.ended
            self._pump()

    def reset(self) -> None:
        """Abort with RST, so that the client cannot take the end for a proper one."""
        self._closing = True
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # Requests.

    def _pump(self) -> None:
        """Take as many requests out of the buffer as can be answered now, one after the other."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._buffer and self.exchange is None and not self._closing:
                if self.write_paused or not self._take_request():
                    break
        finally:
            self._pumping = False
        if self.pauses & PIPELINED and len(self._buffer) <= PIPELINED_LIMIT_BYTES:
            self.resume(PIPELINED)

    def _take_request(self) -> bool:
        """Serve the next request if its head is complete; returns whether to go on."""
        data = self._buffer
        if data[0] == 13 and (empty := _EMPTY_LINES.match(data)):
            # RFC 9112, section 2.2: empty lines before a request are ignored.
            data = self._buffer = data[empty.end() :]
        try:
            found = self._reader.read(data)
        except errors.ProxyError as error:
            self._refuse_head(error, data)
            return False
        if found is None:
            if not self._head_begun:
                self._head_begun = True
                self._deadline = monotonic() + HEAD_SECONDS
            return False
        arrived = monotonic() if self._head_begun else self._begun_at
        self._head_begun = False
        request, end = found
        self._serve(request, data[end:], arrived)
        return True

    def _serve(self, request: Request, rest: bytes, arrived: float) -> None:
        """The straight line: find the service, check what can be checked, ask for a lease."""
        server = self._server
        request_id = request.request_id or server.new_request_id()
        behind = request.fields.has_body or request.fields.upgrade
        self._buffer = b"" if behind else rest
        service = server.find(request.fields.host)
        if service is None:
            self._answer(errors.UnknownHost(), request, request_id, "-")
            return
        limit = service.config.max_body
        if limit is not None and (request.fields.content_length or 0) > limit:
            self._answer(errors.BodyTooLarge(), request, request_id, service.host)
            return
        blocking = service.config.blocking
        if blocking is not True and not service.ready:
            navigation = own_responses.is_navigation(
                request.method.decode(), request.field(b"sec-fetch-mode"), request.field(b"accept")
            )
            if blocking is False or navigation:
                self._answer_starting(service, request, request_id, navigation)
                return
        exchange = Exchange(
            self, request, service, request_id, server.pool, self._begun_at, arrived
        )
        self.exchange = exchange
        self._progress_at = exchange.arrived
        exchange.begin(rest if behind else b"")

    def _answer(
        self, error: errors.ProxyError, request: Request, request_id: bytes, service: str
    ) -> None:
        """Answer a request that never became an exchange."""
        close = self._must_close(request)
        self.refuse(error, request, request_id, close=close)
        self._after_own_answer(error, request, request_id, service, close)

    def _answer_starting(
        self, service: Service, request: Request, request_id: bytes, navigation: bool
    ) -> None:
        error = service.wake()
        if not (navigation and isinstance(error, errors.Starting)):
            self._answer(error, request, request_id, service.host)
            return
        status = service.status()
        close = self._must_close(request)
        self.write(
            own_responses.waiting_page(
                service=service.config.name,
                elapsed_seconds=int(status.since_seconds) if status.state in _ON_THE_WAY else 0,
                retry_after_seconds=error.retry_after_seconds or 1,
                last_start_seconds=status.last_start_seconds,
                request_id=request_id.decode(),
                head_only=request.method == b"HEAD",
                close=close,
            )
        )
        self._after_own_answer(error, request, request_id, service.host, close)

    def _must_close(self, request: Request) -> bool:
        unread = request.fields.has_body or bool(request.fields.upgrade)
        return unread or not request.fields.keep_alive or self._server.draining

    def _after_own_answer(
        self,
        error: errors.ProxyError,
        request: Request,
        request_id: bytes,
        service: str,
        close: bool,
    ) -> None:
        now = self._log_refusal(
            error, service, request.method.decode(), request_id.decode(), request.fields.client
        )
        if close:
            self._close(linger=True)
        else:
            self._deadline = now + KEEP_ALIVE_SECONDS
            self._begun_at = now

    def _refuse_head(self, error: errors.ProxyError, data: bytes) -> None:
        """Answer what could not be read as a request, and be done with this client."""
        request_id = self._server.new_request_id().decode()
        self._buffer = b""
        self._write_error(
            error,
            request_id,
            accept=find_field(data, b"accept"),
            head_only=data.startswith(b"HEAD "),
            close=True,
        )
        self._log_refusal(error, "-", "-", request_id, self._peer)
        self._close(linger=True)

    def _write_error(
        self,
        error: errors.ProxyError,
        request_id: str,
        *,
        accept: bytes,
        head_only: bool,
        close: bool,
    ) -> None:
        self.write(
            own_responses.error_answer(
                error, request_id=request_id, accept=accept, head_only=head_only, close=close
            )
        )

    def _log_refusal(
        self, error: errors.ProxyError, service: str, method: str, request_id: str, client: bytes
    ) -> float:
        """Log a request that never became an exchange; return when it ended."""
        now = monotonic()
        logs.request(
            service=service,
            method=method,
            status=error.status,
            bytes_in=0,
            bytes_out=0,
            held_ms=0.0,
            total_ms=(now - self._begun_at) * 1e3,
            request_id=request_id,
            client=client.decode() or "unix",
            error_tag=error.tag,
        )
        return now

    # Ends.

    def _close(self, *, linger: bool) -> None:
        """Close once all is written; if lingering, once the client has closed or time is up."""
        self._closing = True
        self._buffer = b""
        self._deadline = monotonic() + LINGER_SECONDS
        if self._transport.is_closing():
            return
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
            if self.pauses:
                self.pauses = 0
                self._transport.resume_reading()
        else:
            self._transport.close()

    def close_when_idle(self) -> None:
        """The server stops: go now if no request is in flight."""
        if self.exchange is None and not self._closing:
            self._close(linger=False)

    # Called by the sweep.

    @property
    def unread(self) -> int | None:
        """The file descriptor, if a request is in flight and its client is not read."""
        if not self.pauses or self.exchange is None or self._transport.is_closing():
            return None
        return cast(int, self._transport.get_extra_info("socket").fileno())

    def left_unseen(self) -> None:
        """The kernel says that the client has closed."""
        if self.exchange is not None:
            if self.exchange.stage is Stage.TUNNEL:
                return  # half-closed, perhaps: it is read in its turn
            self.exchange.client_gone()
        self._transport.abort()

    def check_time(self, now: float) -> None:
        """Close what has made no progress for too long."""
        exchange = self.exchange
        if exchange is None:
            if now >= self._deadline:
                self._expire()
            return
        progress = exchange.bytes_in + exchange.bytes_out, self._transport.get_write_buffer_size()
        if progress != self._progress or not self._stallable(exchange):
            self._progress = progress
            self._progress_at = now
        elif now - self._progress_at > STALL_SECONDS:
            if self.write_paused:
                self._transport.abort()
            else:
                exchange.fail(errors.RequestTimeout())

    def _stallable(self, exchange: Exchange) -> bool:
        """Whether the next move is the client's (to read, or to send its body), or a tunnel is
        open in one direction only, as if the other side had not noticed its end."""
        if exchange.stage is Stage.TUNNEL:
            return exchange.half_closed
        return self.write_paused or (exchange.uploading and not self.pauses)

    def _expire(self) -> None:
        if self._closing:
            self._transport.abort()
        elif self._buffer and not self.write_paused:
            self._refuse_head(errors.RequestTimeout(), self._buffer)
        else:
            self._close(linger=False)
