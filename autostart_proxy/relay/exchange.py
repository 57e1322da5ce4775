"""One request's way to its service and back.

Rules:

- An `Exchange` is the lease: it exists from the request's head to the last byte of the response,
  and of both directions of an upgraded connection. It departs exactly once. A request that is
  refused before it asks for a lease is one too: every request ends in the same place.
- The client is read only as fast as the service reads, and not at all while the request is held.
- Once a byte of a request has been written it is never sent again; the one exception is a GET or
  HEAD without a body on a pooled connection that ended without a byte of response.
- A service that ends in the middle of a response cuts the client off: nothing is appended.
- A connection to a service is used again only after a complete exchange that left no doubt: not
  after surplus bytes, an abort, an upgrade, a close-delimited body, a response before the end of
  the request, or a response that has no body by rule, since one may follow all the same.

Everything is called back from the event loop: no task and no future per request.
"""

from __future__ import annotations

import errno
from time import monotonic
from typing import Final

from autostart_proxy import errors
from autostart_proxy.journal import RequestEnded, UpstreamFailed
from autostart_proxy.relay import patience
from autostart_proxy.relay.connection import CLIENT_FULL, HELD, UPSTREAM_FULL, WRITE_BUFFER_BYTES
from autostart_proxy.relay.patience import Due
from autostart_proxy.relay.peers import NOBODY, Client, Service
from autostart_proxy.relay.refusals import refusal
from autostart_proxy.relay.stages import Stage
from autostart_proxy.relay.tunnel import Tunnel
from autostart_proxy.relay.upstream import Address, UpstreamConnection
from autostart_proxy.wire import framing, own_responses
from autostart_proxy.wire.chunks import LAST_CHUNK
from autostart_proxy.wire.requests import Request
from autostart_proxy.wire.responses import Response

UNREACHABLE_LIMIT = 3
"""How often in a row a ready service may refuse connections before its client is told."""

_REPEATABLE = frozenset([b"GET", b"HEAD"])


class Exchange:
    """One request and its response: the lease, and the relay of bytes in both directions.

    Args:
        begun_at, arrived: when the request's first byte was read, and the end of its head;
            seconds of the monotonic clock, like all times here.

    Attributes:
        status: what the client got; 499 if it left before.
        error_tag: of the proxy's own answer, where it gave one.
        bytes_in, bytes_out: body bytes from and to the client.
        held_until: when the request was first admitted or refused; None before.
        interims: how many interim responses the service has given.
    """

    # Defaults of the class: most requests never change most of these, and setting them for each
    # would be a tenth of what a request costs.
    outlives_half_close = False
    stage = Stage.HELD
    status = 499
    error_tag: str | None = None
    bytes_in = 0
    bytes_out = 0
    held_until: float | None = None
    interims = 0
    _address: Address = "", 0
    _upstream: UpstreamConnection | None = None
    _response: Response | None = None
    _response_body: framing.Body | None = None
    _keep_alive = False
    _early = b""
    _unread_head = b""
    _refusals = 0
    _retried = False

    def __init__(
        self,
        client: Client,
        request: Request,
        service: Service,
        request_id: bytes,
        begun_at: float,
        arrived: float,
    ) -> None:
        self.client: Final = client
        self.request: Final = request
        self.service: Final = service
        self.request_id: Final = request_id
        self._begun_at: Final = begun_at
        self._arrived: Final = arrived
        self._body = framing.request_body(request.fields)

    def __repr__(self) -> str:
        return (
            f"<Exchange {self.request_id.decode()} with {self.service.host}: "
            f"{self.stage.value}, {self.bytes_in} bytes in, {self.bytes_out} out>"
        )

    @property
    def cause(self) -> str:
        client = self.request.fields.client or "unix"
        return f"request {self.request_id.decode()} of {client}"

    @property
    def takes_client_data(self) -> bool:
        return self._body is not None or bool(self.request.fields.upgrade)

    def due(self) -> tuple[Due, float | None]:
        config = self.service.config
        sent = self.stage is Stage.SENT
        if self._body is not None:
            reads = (sent or self.stage is Stage.RESPONDING) and not self.client.pauses
            return (Due.BODY, config.body_timeout) if reads else (Due.NOTHING, None)
        if not sent:
            return Due.NOTHING, None
        if self._unread_head:
            return Due.HEAD, patience.RESPONSE_HEAD_SECONDS
        return Due.RESPONSE, config.response_timeout

    def _move(self, stage: Stage) -> None:
        if not self.stage.follows & stage.bit:
            raise RuntimeError(f"{self.stage.value} -> {stage.value}")
        self.stage = stage

    # Beginnings.

    def begin(self, early: bytes) -> None:
        """Ask the service for admission; `early` are the bytes that came behind the head."""
        self._early = early
        answer = self.service.claim(self)
        if isinstance(answer, tuple):
            self.admitted(answer)
        elif answer is None:
            self.client.pause(HELD)
        else:
            self.refused(answer)

    def turn_away(self, *, show_page: bool) -> None:
        """Wake the service, and answer at once that it starts; a person gets the waiting page."""
        self._respond(self.service.wake(self.cause), show_page=show_page)
        self._end(depart=False)

    # From the service.

    def admitted(self, address: Address) -> None:
        """Forward now."""
        if self.stage is not Stage.HELD:
            return
        if self.held_until is None:
            self.held_until = monotonic()
        self._address = address
        pooled = self.client.pool.take(address)
        if pooled is not None:
            self._send(pooled)
        else:
            self._connect()

    def refused(self, error: errors.ProxyError) -> None:
        """Answer with an error; there is no lease, or no longer."""
        if self.stage is Stage.HELD:
            self._respond(error)
            self._end(depart=False)

    def cut(self) -> None:
        """Abort: the drain time is over."""
        self.fail(errors.UpstreamClosed(detail="put to sleep; the drain time was over"))

    # From the client.

    def client_data(self, data: bytes) -> None:
        if self._upstream is None or self._body is None:
            self._early += data
            if len(self._early) > WRITE_BUFFER_BYTES:
                self.client.pause(HELD)
        else:
            self._pass_body(self._body, data)

    def client_ended(self) -> bool:
        """Take it for gone, as reverse proxies commonly do: one that only waits looks the same."""
        self.client_gone()
        return False

    def client_gone(self) -> None:
        if self.stage is not Stage.OVER:
            self.status = 499
            self._end()

    def client_writable(self, writable: bool) -> None:
        if self._upstream is not None:
            self._upstream.read_while(writable, CLIENT_FULL)

    # From the connection to the service.

    def upstream_data(self, data: bytes) -> None:
        body = self._response_body
        if body is None:
            self._read_head(data)
        else:
            self._pass_response(body, data, b"")

    def upstream_ended(self) -> bool:
        return False

    def upstream_lost(self, clean: bool) -> None:
        begun = bool(self._unread_head) or self._response is not None
        pooled = self._upstream is not None and self._upstream.served > 0
        if isinstance(self._response_body, framing.UntilClose) and clean:
            if not self.request.http10:
                self.client.write(LAST_CHUNK)
            self._complete(b"")
        elif pooled and self._repeatable and not begun and not self._retried:
            self._retried = True
            self._connect()
        else:
            self.fail(errors.UpstreamClosed())

    def upstream_writable(self, writable: bool) -> None:
        self.client.read_while(writable, UPSTREAM_FULL)

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
        keep_alive = self.request.fields.keep_alive and self.client.keeps_alive
        return keep_alive and self._request_read

    @property
    def _repeatable(self) -> bool:
        return self.request.method in _REPEATABLE and not self.request.fields.has_body

    def _connect(self) -> None:
        self._move(Stage.CONNECTING)
        self._upstream = None
        self.client.pool.connect(self._address, self)

    def connected(self, upstream: UpstreamConnection) -> None:
        """A fresh connection is there; if the client has left, it serves somebody else."""
        if self.stage is Stage.CONNECTING:
            self._send(upstream)
        else:
            self.client.pool.put(upstream)

    def not_connected(self, cause: OSError) -> None:
        """Nobody listens: let the service be checked and healed while the request waits again."""
        if self.stage is not Stage.CONNECTING:
            return
        self._refusals += 1
        ours = cause.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
        if ours or self._refusals > UNREACHABLE_LIMIT:
            self.fail(errors.UpstreamUnreachable(detail=str(cause)))
            return
        self._move(Stage.HELD)
        self.client.pause(HELD)
        self.service.unreachable(self)

    def _send(self, upstream: UpstreamConnection) -> None:
        self._move(Stage.SENT)
        self._upstream = upstream
        upstream.exchange = self
        upstream.write(self.request.upstream_head(self.request_id))
        client = self.client
        if client.write_paused:
            upstream.pause(CLIENT_FULL)
        if self._body is not None:
            if self.request.fields.expects_continue:
                client.answer(own_responses.CONTINUE)
            if self._early:
                early, self._early = self._early, b""
                try:
                    self._pass_body(self._body, early)
                except errors.ProxyError as error:
                    self.fail(error)
                    return
            if self._body is not None:
                upstream.keep_last_words()
        if client.pauses:
            client.resume(HELD)

    def _pass_body(self, body: framing.Body, data: bytes) -> None:
        passed = body.feed(data)
        limit = self.service.config.max_body
        if limit is not None and body.size > limit:
            raise errors.BodyTooLarge()
        self.bytes_in += len(passed)
        if body.done:
            self._body = None
        self._sender.write(passed)
        if body.behind:
            self.client.fall_behind()
        elif body.done and body.surplus:
            self.client.keep(body.surplus)

    # Responses of the service.

    def _read_head(self, data: bytes) -> None:
        data, self._unread_head = self._unread_head + data, b""
        found = self._sender.reader.read(data)
        if found is None:
            self._unread_head = data
            return
        response, end = found
        if response.status >= 200:
            self._begin_response(response, data[end:])
        elif response.is_interim:
            self._pass_interims(data)
        else:
            self._switch(response, data[end:])

    def _pass_interims(self, data: bytes) -> None:
        heads, end, more = self._sender.reader.read_interims(data)
        self.interims += len(heads)
        if not self.request.http10:
            self.client.write(b"".join(heads))
        self._unread_head = data[end:]
        if more:
            self._sender.fall_behind()

    def _begin_response(self, response: Response, rest: bytes) -> None:
        self._move(Stage.RESPONDING)
        self._response = response
        self.status = response.status
        framed = self._sender.framer.frame(
            response,
            to_head=self.request.method == b"HEAD",
            http10=self.request.http10,
            # Early bytes of a refused upgrade were meant for another protocol.
            keep_alive=self._may_keep_alive,
        )
        self._keep_alive = framed.keep_alive
        head = framed.head(self.request_id)
        if framed.body is None:
            self.client.write(head)
            self._complete(rest)
            return
        self._response_body = body = framed.body()
        self._pass_response(body, rest, head)

    def _pass_response(self, body: framing.Body, data: bytes, head: bytes) -> None:
        passed = body.feed(data)
        self.bytes_out += len(passed)
        self.client.write(head + passed if passed else head)
        if body.done:
            self._complete(body.surplus)
        elif body.behind:
            self._sender.fall_behind()

    def _complete(self, surplus: bytes) -> None:
        """The response is complete."""
        response, upstream = self._response, self._upstream
        certain = self._body is None and not surplus and self._response_body is not None
        if upstream is not None and response is not None and response.keep_alive and certain:
            self._upstream = None
            self.client.pool.put(upstream)
        self._end()

    def _switch(self, response: Response, rest: bytes) -> None:
        """Leave both connections to a tunnel."""
        if not self.request.fields.upgrade:
            raise errors.BadUpstream(detail="it switched protocols without being asked")
        self._move(Stage.TUNNEL)
        self.status = 101
        protocol = response.upgrade or self.request.fields.upgrade
        lines = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
        framed = framing.Framed(response.downstream_lines(lines), keep_alive=False, body=None)
        self.client.write(framed.head(self.request_id))
        early, self._early = self._early, b""
        self._tunnel = Tunnel(self.client, self._sender, self._tunnel_closed)
        self._tunnel.begin(early, rest)

    def _tunnel_closed(self) -> None:
        self._upstream = None
        self.bytes_in, self.bytes_out = self._tunnel.bytes_in, self._tunnel.bytes_out
        self._end()

    # Responses of the proxy itself.

    def fail(self, error: errors.ProxyError) -> None:
        """End with the proxy's own answer, or by cutting the client off if a response has begun."""
        if self.stage is Stage.OVER:
            return
        if self.stage is Stage.TUNNEL:
            self._tunnel.close()
        elif self._response is None:
            self._respond(error)
            self._end()
        else:
            self.error_tag = error.tag
            self.client.reset()
            self._end()

    def _respond(self, error: errors.ProxyError, *, show_page: bool = False) -> None:
        if isinstance(error, errors.UpstreamError):
            fact = UpstreamFailed(self.service.host, self.request_id.decode(), error)
            self.client.journal.record(fact)
        if self.held_until is None:
            self.held_until = monotonic()
        self.status = error.status
        self.error_tag = error.tag
        # What comes behind a refused upgrade may be meant for another protocol.
        self._keep_alive = self._may_keep_alive and not self.request.fields.upgrade
        close = not self._keep_alive
        service = self.service if show_page else None
        self.client.answer(refusal(error, self.request, self.request_id, service, close=close))

    # The end.

    def _end(self, *, depart: bool = True) -> None:
        self._move(Stage.OVER)
        ended = monotonic()
        if self._upstream is not None:
            self._upstream.drop()
            self._upstream = None
        if depart:
            self.service.depart(self)
        request, read = self.request, self._request_read
        fields, service = request.fields, self.service.host
        self.client.journal.record(
            RequestEnded(
                service,
                request.method.decode(),
                request.path,
                self.status,
                self.bytes_in,
                self.bytes_out,
                (self.held_until or ended) - self._arrived,
                ended - self._begun_at,
                self.request_id.decode(),
                fields.client,
                fields.user_agent,
                self.error_tag,
                (fields.host or None) if service == NOBODY else None,
            )
        )
        self.client.over(ended, keep_alive=self._keep_alive and read, request_read=read)
