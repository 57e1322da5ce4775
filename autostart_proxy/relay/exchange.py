"""One request's way to its service and back.

Rules:

- An `Exchange` is the lease: it exists from the request's head to the last byte of the answer,
  and of both directions of an upgraded connection. It departs exactly once.
- The client is read only as fast as the service reads, and not at all while the request is held.
- Once a byte of a request has been written it is never sent again; the one exception is a GET or
  HEAD without a body on a pooled connection that ended without a byte of answer.
- A service that ends in the middle of an answer cuts the client off: nothing is appended.
- A connection to a service is used again only after a complete exchange that left no doubt: not
  after surplus bytes, an abort, an upgrade, a close-delimited body, an answer before the end of
  the request, or an answer that has no body by rule, since one may follow all the same.

Everything is called back from the event loop: no task and no future per request.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import Final, Literal, Protocol

from autostart_proxy import errors
from autostart_proxy.backends import Upstream
from autostart_proxy.relay.upstream import WRITE_BUFFER_BYTES, Address, Pool, UpstreamConnection
from autostart_proxy.wire import framing, own_responses
from autostart_proxy.wire.requests import Request
from autostart_proxy.wire.responses import Answer

_log = logging.getLogger(__name__)

UNREACHABLE_LIMIT = 3
"""How often in a row a ready service may refuse connections before its client is told."""

_REPEATABLE = frozenset([b"GET", b"HEAD"])


class ServiceConfig(Protocol):
    """What the relay reads of a service's configuration."""

    @property
    def name(self) -> str: ...
    @property
    def blocking(self) -> bool | Literal["auto"]: ...
    @property
    def max_body(self) -> int | None: ...


class ServiceStatus(Protocol):
    """What the waiting page shows."""

    @property
    def state(self) -> str: ...
    @property
    def since_seconds(self) -> float: ...
    @property
    def last_start_seconds(self) -> float | None: ...


class Service(Protocol):
    """What the relay asks of a service; `service.Service` says what each means."""

    @property
    def config(self) -> ServiceConfig: ...
    @property
    def host(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    def arrive(self, lease: Exchange, /) -> None: ...
    def depart(self, lease: Exchange, /) -> None: ...
    def unreachable(self, lease: Exchange, /) -> None: ...
    def wake(self) -> errors.ProxyError: ...
    def status(self) -> ServiceStatus: ...


# Why a client is not read; flags, since several reasons may hold at once. Plain numbers: the enum
# module's flags would cost a microsecond for every request.
HELD: Final = 1
UPSTREAM_FULL: Final = 2
PIPELINED: Final = 4


class Client(Protocol):
    """The side of the client, as an exchange sees it."""

    write_paused: bool
    pauses: int

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow."""
        ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """Takes bytes for the client; an attribute, since it is called for every message."""
        ...

    def write_eof(self) -> None: ...
    def pause(self, why: int) -> None: ...
    def resume(self, why: int) -> None: ...
    def keep(self, data: bytes) -> None:
        """Take back bytes that belong to the next request."""
        ...

    def refuse(
        self, error: errors.ProxyError, request: Request, request_id: bytes, *, close: bool
    ) -> None:
        """Answer with an error."""
        ...

    def over(self, exchange: Exchange, *, keep_alive: bool, request_read: bool) -> None:
        """The exchange has ended: log it, go on with the next or close once all is written."""
        ...

    def reset(self) -> None:
        """Drop the connection so that the client cannot take it for a complete answer."""
        ...


class Stage(Enum):
    """How far an exchange has come."""

    HELD = "held"
    CONNECTING = "connecting"
    SENT = "sent"
    ANSWERING = "answering"
    TUNNEL = "tunnel"
    OVER = "over"


class Exchange:
    """One request and its answer: the lease, and the relay of bytes in both directions.

    Attributes:
        status: what the client got; 499 if it left before.
        bytes_in, bytes_out: body bytes from and to the client.
        begun_at, arrived, admitted_at, ended: seconds of the monotonic clock: the request's first
            byte, the end of its head, its admission (None while it is held), its end.
    """

    # Defaults of the class: most requests never change most of these, and setting them for each
    # would be a tenth of what a request costs.
    stage = Stage.HELD
    status = 499
    error_tag: str | None = None
    bytes_in = 0
    bytes_out = 0
    admitted_at: float | None = None
    ended = 0.0
    _address: Address = "", 0
    _upstream: UpstreamConnection | None = None
    _body: framing.Body | None = None
    _answer: Answer | None = None
    _answer_body: framing.Body | None = None
    _keep_alive = False
    _early = b""
    _unread_head = b""
    _refusals = 0
    _retried = False
    _client_ended = False
    _upstream_ended = False

    def __init__(
        self,
        client: Client,
        request: Request,
        service: Service,
        request_id: bytes,
        pool: Pool,
        begun_at: float,
        arrived: float,
    ) -> None:
        self.client: Final = client
        self.request: Final = request
        self.service: Final = service
        self.request_id: Final = request_id
        self._pool: Final = pool
        self.begun_at: Final = begun_at
        self.arrived: Final = arrived
        fields = request.fields
        if fields.chunked:
            self._body = framing.Chunked(errors.BadRequest)
        elif fields.content_length:
            self._body = framing.Counted(fields.content_length)

    def __repr__(self) -> str:
        return (
            f"<Exchange {self.request_id.decode()} with {self.service.host}: "
            f"{self.stage.value}, {self.bytes_in} bytes in, {self.bytes_out} out>"
        )

    @property
    def takes_client_data(self) -> bool:
        """Whether bytes of the client belong to this exchange rather than to the next."""
        return self._body is not None or bool(self.request.fields.upgrade)

    @property
    def uploading(self) -> bool:
        """Whether it is the client's turn to send."""
        return self._body is not None and self.stage in (Stage.SENT, Stage.ANSWERING)

    @property
    def half_closed(self) -> bool:
        """Whether one direction of a tunnel has ended."""
        return self._client_ended or self._upstream_ended

    # From the service.

    def begin(self, early: bytes) -> None:
        """Ask the service for admission; `early` are the bytes that came behind the head."""
        self._early = early
        self.service.arrive(self)
        if self.stage is Stage.HELD:
            self.client.pause(HELD)

    def admitted(self, upstream: Upstream) -> None:
        if self.stage is not Stage.HELD:
            return
        if self.admitted_at is None:
            self.admitted_at = monotonic()
        self._address = upstream.host, upstream.port
        pooled = self._pool.take(self._address, certain=not self._repeatable)
        if pooled is not None:
            self._send(pooled)
        else:
            self._connect()

    def refused(self, error: errors.ProxyError) -> None:
        if self.stage is Stage.HELD:
            self._answer_with(error)
            self._end(depart=False)

    def cut(self) -> None:
        self.fail(errors.UpstreamClosed(detail="put to sleep; the drain time was over"))

    # From the client.

    def client_data(self, data: bytes) -> None:
        """Pass on what the client sent.

        Raises:
            BadRequest, HeadersTooLarge, BodyTooLarge: the body is refused.
        """
        if self.stage is Stage.TUNNEL:
            self.bytes_in += len(data)
            self._sender.write(data)
        elif self._upstream is None or self._body is None:
            self._early += data
            if len(self._early) > WRITE_BUFFER_BYTES:
                self.client.pause(HELD)
        else:
            self._pass_body(self._body, data)

    def client_ended(self) -> bool:
        """The client has closed its sending side; returns whether it may still be written to.

        Outside a tunnel that means that it is gone, as reverse proxies commonly take it: a
        client that only waits and one that has left look the same.
        """
        if self.stage is not Stage.TUNNEL:
            self.client_gone()
            return False
        self._client_ended = True
        if self._upstream_ended:
            self._close_tunnel()
            return False
        self._sender.write_eof()
        return True

    def client_gone(self) -> None:
        """Nobody waits for this any more."""
        if self.stage is Stage.TUNNEL:
            self._close_tunnel()
        elif self.stage is not Stage.OVER:
            self.status = 499
            self._end()

    def client_writable(self, writable: bool) -> None:
        """The client's write buffer has emptied, or is full."""
        if self._upstream is not None:
            self._upstream.set_reading(writable)

    # From the connection to the service.

    def upstream_data(self, data: bytes) -> None:
        """Pass on what the service sent.

        Raises:
            BadUpstream
        """
        body = self._answer_body
        if body is not None:
            passed = body.feed(data)
            self.bytes_out += len(passed)
            self.client.write(passed)
            if body.done:
                self._answered(body.surplus)
        elif self.stage is Stage.TUNNEL:
            self.bytes_out += len(data)
            self.client.write(data)
        else:
            self._read_head(data)

    def upstream_ended(self) -> bool:
        """The service has closed its sending side; returns whether it may still be written to."""
        if self.stage is not Stage.TUNNEL:
            return False
        self._upstream_ended = True
        if self._client_ended:
            self._close_tunnel()
            return False
        self.client.write_eof()
        return True

    def upstream_lost(self, clean: bool) -> None:
        """The connection to the service is gone; `clean` if it was closed in good order."""
        answered_bytes = bool(self._unread_head) or self._answer is not None
        pooled = self._upstream is not None and self._upstream.served > 0
        if self.stage is Stage.TUNNEL:
            self._close_tunnel()
        elif isinstance(self._answer_body, framing.UntilClose) and clean:
            if not self.request.http10:
                self.client.write(framing.LAST_CHUNK)
            self._answered(b"")
        elif pooled and self._repeatable and not answered_bytes and not self._retried:
            self._retried = True
            self._connect()
        else:
            self.fail(errors.UpstreamClosed())

    def upstream_writable(self, writable: bool) -> None:
        """The service's write buffer has emptied, or is full."""
        if writable:
            self.client.resume(UPSTREAM_FULL)
        else:
            self.client.pause(UPSTREAM_FULL)

    # Ends.

    def fail(self, error: errors.ProxyError) -> None:
        """End with the proxy's own answer, or by cutting the client off if one has begun."""
        if self.stage is Stage.OVER:
            return
        if self.stage is Stage.TUNNEL:
            self._close_tunnel()
        elif self._answer is None:
            self._answer_with(error)
            self._end()
        else:
            self.error_tag = error.tag
            self.client.reset()
            self._end()

    def _answer_with(self, error: errors.ProxyError) -> None:
        self.status = error.status
        self.error_tag = error.tag
        _log_failure(self, error)
        self._keep_alive = self._may_keep_alive
        self.client.refuse(error, self.request, self.request_id, close=not self._keep_alive)

    def _answered(self, surplus: bytes) -> None:
        """The answer is complete."""
        answer, upstream = self._answer, self._upstream
        certain = self._body is None and not surplus and self._answer_body is not None
        if upstream is not None and answer is not None and answer.keep_alive and certain:
            self._upstream = None
            self._pool.put(upstream)
        self._end()

    def _end(self, *, depart: bool = True) -> None:
        self.stage = Stage.OVER
        self.ended = monotonic()
        if self._upstream is not None:
            self._upstream.drop()
            self._upstream = None
        if depart:
            self.service.depart(self)
        read = self._request_read
        self.client.over(self, keep_alive=self._keep_alive and read, request_read=read)

    # Requests.

    @property
    def _sender(self) -> UpstreamConnection:
        if self._upstream is None:
            raise RuntimeError(f"no connection to the service: {self!r}")
        return self._upstream

    @property
    def _request_read(self) -> bool:
        """Whether the client has nothing left to send that belongs to this request."""
        return self._body is None and not self._early

    @property
    def _may_keep_alive(self) -> bool:
        return self.request.fields.keep_alive and self.client.keeps_alive and self._request_read

    @property
    def _repeatable(self) -> bool:
        return self.request.method in _REPEATABLE and not self.request.fields.has_body

    def _connect(self) -> None:
        self.stage = Stage.CONNECTING
        self._upstream = None
        self._pool.connect(self._address, self)

    def connected(self, upstream: UpstreamConnection) -> None:
        """A fresh connection is there; if the client has left, it serves somebody else."""
        if self.stage is Stage.CONNECTING:
            self._send(upstream)
        else:
            self._pool.put(upstream)

    def not_connected(self, cause: OSError) -> None:
        """Nobody listens: let the service be checked and healed while the request waits again."""
        if self.stage is not Stage.CONNECTING:
            return
        self._refusals += 1
        ours = cause.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
        if ours or self._refusals > UNREACHABLE_LIMIT:
            self.fail(errors.UpstreamUnreachable(detail=str(cause)))
            return
        self.stage = Stage.HELD
        self.client.pause(HELD)
        self.service.unreachable(self)

    def _send(self, upstream: UpstreamConnection) -> None:
        self.stage = Stage.SENT
        self._upstream = upstream
        upstream.exchange = self
        upstream.write(self.request.upstream_head(self.request_id))
        if self.client.write_paused:
            upstream.set_reading(False)
        if self._body is not None:
            if self.request.fields.expects_continue:
                self.client.write(own_responses.CONTINUE)
            if self._early:
                early, self._early = self._early, b""
                try:
                    self._pass_body(self._body, early)
                except errors.ProxyError as error:
                    self.fail(error)
                    return
            if self._body is not None:
                upstream.keep_last_words()
        if self.client.pauses:
            self.client.resume(HELD)

    def _pass_body(self, body: framing.Body, data: bytes) -> None:
        passed = body.feed(data)
        limit = self.service.config.max_body
        if limit is not None and body.size > limit:
            raise errors.BodyTooLarge()
        self.bytes_in += len(passed)
        if body.done:
            self._body = None
        self._sender.write(passed)
        if body.done and body.surplus:
            self.client.keep(body.surplus)

    # Answers.

    def _read_head(self, data: bytes) -> None:
        if self._unread_head:
            data, self._unread_head = self._unread_head + data, b""
        while True:
            found = self._sender.reader.read(data)
            if found is None:
                self._unread_head = data
                return
            answer, end = found
            data = data[end:]
            if answer.status >= 200:
                self._begin_answer(answer, data)
                return
            if answer.status == 101:
                self._switch(answer, data)
                return
            if not self.request.http10:
                self.client.write(answer.interim_head())
            if not data:
                return

    def _begin_answer(self, answer: Answer, rest: bytes) -> None:
        self.stage = Stage.ANSWERING
        self._answer = answer
        self.status = answer.status
        http10 = self.request.http10
        # Early bytes of a refused upgrade were meant for another protocol.
        keep_alive = self._may_keep_alive
        length = answer.content_length
        lines = b""
        body: framing.Body | None = None
        if answer.status != 204:
            if answer.chunked:
                lines = b"" if http10 else b"Transfer-Encoding: chunked\r\n"
                body = framing.Chunked(errors.BadUpstream, decode=http10)
                keep_alive = keep_alive and not http10
            elif length is not None:
                lines = b"Content-Length: %d\r\n" % length
                body = framing.Counted(length)
            elif answer.status != 304 and self.request.method != b"HEAD":
                lines = b"" if http10 else b"Transfer-Encoding: chunked\r\n"
                body = framing.UntilClose(encode=not http10)
                keep_alive = keep_alive and not http10
        if answer.status == 304 or self.request.method == b"HEAD":
            body = None
        if not keep_alive:
            lines += b"Connection: close\r\n"
        elif http10:
            lines += b"Connection: keep-alive\r\n"
        self._keep_alive = keep_alive
        self._answer_body = body
        head = answer.client_head(self.request_id, lines)
        if body is None:
            self.client.write(head)
            self._answered(rest)
            return
        passed = body.feed(rest)
        self.bytes_out = len(passed)
        self.client.write(head + passed if passed else head)
        if body.done:
            self._answered(body.surplus)

    # Upgraded connections.

    def _switch(self, answer: Answer, rest: bytes) -> None:
        if not self.request.fields.upgrade:
            raise errors.BadUpstream(detail="it switched protocols without being asked")
        self.stage = Stage.TUNNEL
        self._answer = answer
        self.status = 101
        protocol = answer.upgrade or self.request.fields.upgrade
        lines = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
        self.bytes_out = len(rest)
        self.client.write(answer.client_head(self.request_id, lines) + rest)
        if self._early:
            early, self._early = self._early, b""
            self.client_data(early)
        self.client.resume(HELD)

    def _close_tunnel(self) -> None:
        """Both directions have ended, or one connection is gone: let what is written arrive."""
        upstream, self._upstream = self._sender, None
        upstream.close()
        self._end()


def _log_failure(exchange: Exchange, error: errors.ProxyError) -> None:
    """What only the operator may know; starts that fail are logged by their service."""
    if isinstance(error, errors.UpstreamError):
        _log.warning(
            "service did not answer",
            extra={
                "service": exchange.service.host,
                "id": exchange.request_id.decode(),
                "error": error.tag,
                "reason": str(error),
                "cure": error.remedy,
            },
        )
