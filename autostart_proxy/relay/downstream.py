"""One client's connection: the straight line of a request.

head -> host -> service -> limits -> lease -> exchange -> one fact in the journal.

Rules:

- Every request is an exchange, also one that is refused before its head was understood; but not
  those to paths of the proxy's own, with which a waiting page asks how the service is doing.
- Requests of one connection are answered one after the other; what comes early waits, and while
  more than a little waits the client is not read. Of those that are answered at once, only so many
  are in one turn of the event loop.
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

from autostart_proxy import errors
from autostart_proxy.journal import Journal
from autostart_proxy.relay.connection import (
    HELD,
    IN_TURN,
    PIPELINED,
    UPSTREAM_FULL,
    Connection,
)
from autostart_proxy.relay.exchange import Exchange
from autostart_proxy.relay.patience import Patience
from autostart_proxy.relay.peers import NOBODY, Lease, Occupant, Service
from autostart_proxy.relay.refusals import is_navigation
from autostart_proxy.relay.turns import BULK_BYTES, Turns
from autostart_proxy.relay.upstream import Pool
from autostart_proxy.relay.waiting import own_answer
from autostart_proxy.status import ServiceStatus
from autostart_proxy.wire.requests import Request, RequestReader
from autostart_proxy.wire.waiting import OWN_PATHS

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75.0
LINGER_SECONDS = 5.0
PIPELINED_LIMIT_BYTES = 64 * 1024

REQUESTS_AT_A_TIME = 32
HEAD_BYTES_AT_A_TIME = 16 * 1024
"""What is taken of one client in one turn: well below a millisecond's work."""

_EMPTY_LINES = re.compile(rb"(?:\r\n){1,500}+")
_TOO_MANY_EMPTY_LINES = b"\r\n" * 500


class Owner(Protocol):
    """What a connection asks of the server it belongs to."""

    @property
    def pool(self) -> Pool: ...
    @property
    def turns(self) -> Turns: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def draining(self) -> bool: ...
    def find(self, host: str, /) -> Service | None: ...
    def trusts(self, peer: bytes, /) -> bool: ...
    def new_request_id(self) -> bytes: ...
    def joined(self, connection: DownstreamConnection) -> None: ...
    def left(self, connection: DownstreamConnection) -> None: ...


class _Nobody:
    """The service of all hosts that have none: it admits nobody."""

    host = name = NOBODY
    ready = True
    blocking = True
    max_body = response_timeout = body_timeout = None

    @property
    def config(self) -> _Nobody:
        return self

    def claim(self, lease: Lease) -> errors.ProxyError:
        return errors.UnknownHost()

    def depart(self, lease: Lease) -> None: ...
    def unreachable(self, lease: Lease) -> None: ...

    def wake(self, cause: str) -> errors.ProxyError:
        return errors.UnknownHost()

    def status(self) -> ServiceStatus:
        raise errors.UnknownHost


_NOBODY = _Nobody()


class DownstreamConnection(Connection):
    """One client, and the requests it sends one after the other."""

    __slots__ = (
        "_answers",
        "_at",
        "_begun_at",
        "_buffer",
        "_closing",
        "_deadline",
        "_head_begun",
        "_owner",
        "_patience",
        "_peer",
        "_pumping",
        "_reader",
        "exchange",
        "journal",
        "pool",
        "write_paused",
    )

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner.turns)
        self._owner: Final = owner
        self.pool: Final = owner.pool
        self.journal: Final = owner.journal
        self.exchange: Occupant | None = None
        self.write_paused = False
        self._buffer = b""
        self._at = 0  # where in the buffer the next request begins; 0 but while it is pumped
        self._begun_at = 0.0
        self._head_begun = False
        self._closing = False
        self._pumping = False
        self._answers: list[bytes] = []
        self._deadline = monotonic() + HEAD_SECONDS
        self._patience: Final = Patience()

    def __repr__(self) -> str:
        doing = "closing" if self._closing else repr(self.exchange or "between requests")
        return f"<DownstreamConnection {self._peer.decode() or 'unix'}, {doing}>"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        self._peer = name[0].encode() if isinstance(name, tuple) else b""
        self._reader = RequestReader(peer=self._peer, trusted=self._owner.trusts(self._peer))
        self._owner.joined(self)

    def data_received(self, data: bytes) -> None:
        if len(data) >= BULK_BYTES:
            self.read_in_bulk(len(data))
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
        self._owner.left(self)
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
        return not self._owner.draining

    def answer(self, data: bytes) -> None:
        """Write words of the proxy's own, together with those of other requests of this turn."""
        if self._pumping:
            self._answers.append(data)
        else:
            self.write(data)

    def keep(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > PIPELINED_LIMIT_BYTES:
            self.pause(PIPELINED)

    def occupy(self, by: Occupant) -> None:
        self.exchange = by

    def over(self, ended: float, *, keep_alive: bool, request_read: bool) -> None:
        self.exchange = None
        if self._closing:
            return
        if not keep_alive:
            self._close(linger=not request_read or bool(self._buffer))
            return
        if self._owner.draining and not self._buffer:
            # The response had begun before the end was known, so it could not announce it.
            self._close(linger=False)
            return
        self._deadline = ended + KEEP_ALIVE_SECONDS
        if self.pauses:
            self.resume(HELD | UPSTREAM_FULL)
        if self._buffer:
            self._begun_at = ended
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
        """Take requests out of the buffer as far as they can be answered now, one after the other.

        What is more than one turn's work is left for the next.
        """
        if self._pumping:
            return
        self._pumping = True
        taken, more = 0, False
        try:
            while self._buffer and self.exchange is None:
                if self._closing or self.write_paused:
                    break
                if taken == REQUESTS_AT_A_TIME or self._at > HEAD_BYTES_AT_A_TIME:
                    more = True
                    break
                if not self._take_request():
                    break
                taken += 1
        finally:
            self._pumping = False
            if self._answers:
                self._say_answers()
        if self._at:
            self._buffer = self._buffer[self._at :]
            self._at = 0
        if more:
            self.fall_behind()
        elif self.pauses & PIPELINED and len(self._buffer) <= PIPELINED_LIMIT_BYTES:
            self.resume(PIPELINED)

    def _say_answers(self) -> None:
        answers, self._answers = self._answers, []
        if answers:
            self.write(b"".join(answers))

    def _take_request(self) -> bool:
        """Serve the next request if its head is complete; returns whether to go on."""
        data, at = self._buffer, self._at
        if data[at] == 13 and (empty := _EMPTY_LINES.match(data, at)):
            # RFC 9112, section 2.2: empty lines before a request are ignored.
            self._at = at = empty.end()
            if empty[0] == _TOO_MANY_EMPTY_LINES:
                self._refuse_head(errors.BadRequest())
                return False
        try:
            found = self._reader.read(data, at)
        except errors.ProxyError as error:
            self._refuse_head(error)
            return False
        if found is None:
            if not self._head_begun:
                self._head_begun = True
                self._deadline = monotonic() + HEAD_SECONDS
            return False
        arrived = monotonic() if self._head_begun else self._begun_at
        self._head_begun = False
        request, end = found
        self._serve(request, end, arrived)
        return True

    def _serve(self, request: Request, end: int, arrived: float) -> None:
        """The straight line: find the service, check what can be checked, ask for a lease."""
        owner, fields = self._owner, request.fields
        service = owner.find(fields.host) or _NOBODY
        own = request.target.startswith(OWN_PATHS) and service is not _NOBODY
        if own and self._answer_own(request, service, end):
            return
        exchange = Exchange(
            self,
            request,
            service,
            request.request_id or owner.new_request_id(),
            self._begun_at,
            arrived,
        )
        self.exchange = exchange
        rest = b""
        if fields.has_body or fields.upgrade:
            rest, end = self._buffer[end:], len(self._buffer)
        self._take(end)
        config = service.config
        if config.max_body is not None and (fields.content_length or 0) > config.max_body:
            exchange.refused(errors.BodyTooLarge())
            return
        if config.blocking is not True and not service.ready:
            navigation = is_navigation(request)
            if navigation or config.blocking is False:
                exchange.turn_away(show_page=navigation)
                return
        exchange.begin(rest)

    def _answer_own(self, request: Request, service: Service, end: int) -> bool:
        """Answer at a path of the proxy's own; False where it is none. No log tells of it: pages
        that wait ask again and again."""
        keep_alive = request.fields.keep_alive and self.keeps_alive
        id_ = request.request_id or self._owner.new_request_id()
        answer = own_answer(request, id_, service, close=not keep_alive)
        if answer is None:
            return False
        self._take(end)
        self.answer(answer)
        self.over(monotonic(), keep_alive=keep_alive, request_read=True)
        return True

    def _take(self, end: int) -> None:
        """Take what comes before `end` out of the buffer."""
        if end == len(self._buffer):
            self._buffer, end = b"", 0
        self._at = end

    def _refuse_head(self, error: errors.ProxyError) -> None:
        """Answer what could not be read as a request, and be done with this client."""
        request = self._reader.salvage(self._buffer, self._at)
        self._buffer, self._at = b"", 0
        self.exchange = exchange = Exchange(
            self,
            request,
            _NOBODY,
            request.request_id or self._owner.new_request_id(),
            self._begun_at,
            monotonic(),
        )
        exchange.refused(error)

    # Ends.

    def _close(self, *, linger: bool) -> None:
        """Close once all is written; if lingering, once the client has closed or time is up."""
        self._closing = True
        self._say_answers()
        self._buffer, self._at = b"", 0
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
        waits = self.pauses & ~IN_TURN
        if not waits or self.exchange is None or self._transport.is_closing():
            return None
        return cast(int, self._transport.get_extra_info("socket").fileno())

    def left_unseen(self) -> None:
        """The kernel says that the client has closed."""
        if self.exchange is not None:
            if self.exchange.outlives_half_close:
                return  # it is read in its turn
            self.exchange.client_gone()
        self._transport.abort()

    def check_time(self, now: float) -> None:
        """Close what has made no progress for too long."""
        exchange = self.exchange
        if exchange is None:
            self._patience.forget()
            if now >= self._deadline:
                self._expire()
            return
        error = self._patience.is_lost(exchange, now)
        if self.write_paused:
            waiting = self._transport.get_write_buffer_size()
            if self._patience.is_unread(exchange.bytes_out, waiting, now):
                self._transport.abort()
        elif error is not None:
            exchange.fail(error)

    def _expire(self) -> None:
        if self._closing:
            self._transport.abort()
        elif self._buffer and not self.write_paused:
            self._refuse_head(errors.RequestTimeout())
        else:
            self._close(linger=False)
