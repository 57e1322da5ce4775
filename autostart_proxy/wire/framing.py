"""Message bodies: where they end, and nothing beyond (RFC 9112, sections 6 and 7). Pure.

`request_body` and `frame_response` decide which framing a message has, the classes follow it.

A body is fed the bytes that arrive and gives back those that may be passed on. Once `done`,
`surplus` holds what came behind it, which belongs to the next message or to nobody. Bytes that
are not yet known to be valid (half a chunk-size line) are kept back, so that nothing is sent on
beyond the valid prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

from autostart_proxy import errors
from autostart_proxy.wire.chunks import Chunked
from autostart_proxy.wire.request_fields import RequestFields
from autostart_proxy.wire.responses import Response


class Body(Protocol):
    """What of a stream belongs to one message.

    `size` counts the payload seen or announced so far, in bytes. `behind` says that input is kept
    which could be read already: `feed(b"")` goes on with it, when others have had their turn.
    """

    behind: bool
    done: bool
    surplus: bytes
    size: int

    def feed(self, data: bytes) -> bytes:
        """Take bytes in, give back those to pass on.

        Raises:
            BadRequest, HeadersTooLarge: as given to the constructor, the framing is broken.
        """
        ...


class Counted:
    """A body of a known length in bytes."""

    __slots__ = ("_left", "done", "size", "surplus")
    behind = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.size = length
        self.done = length == 0
        self.surplus = b""

    def __repr__(self) -> str:
        return f"<Counted {self._left} of {self.size} bytes left>"

    def feed(self, data: bytes) -> bytes:
        left = self._left
        if len(data) > left:
            data, self.surplus = data[:left], data[left:]
        self._left = left = left - len(data)
        self.done = left == 0
        return data


class UntilClose:
    """An answer's body that ends with the connection.

    Args:
        encode: give it back as chunks, so that the reader can tell the end from an accident;
            `chunks.LAST_CHUNK` must follow the end.
    """

    __slots__ = ("_encode", "done", "size", "surplus")
    behind = False

    def __init__(self, *, encode: bool) -> None:
        self._encode: Final = encode
        self.done = False
        self.size = 0
        self.surplus = b""

    def __repr__(self) -> str:
        return f"<UntilClose {self.size} bytes so far>"

    def feed(self, data: bytes) -> bytes:
        self.size += len(data)
        return b"%x\r\n%b\r\n" % (len(data), data) if self._encode and data else data


def request_body(fields: RequestFields) -> Body | None:
    """How a request's body is read; None where there is none."""
    if fields.chunked:
        return Chunked(errors.BadRequest)
    return Counted(fields.content_length) if fields.content_length else None


class Framed(NamedTuple):
    """How a response goes downstream, and how its body is read.

    `lines` are its head but for the request id and the empty line, `keep_alive` says whether the
    client's connection stays open, and `body` makes the reader of the body; None where no byte of
    one follows.
    """

    lines: bytes
    keep_alive: bool
    body: Callable[[], Body] | None

    def head(self, request_id: bytes) -> bytes:
        """Write the head that goes to the client."""
        return b"%bX-Request-ID: %b\r\n\r\n" % (self.lines, request_id)


class Framer:
    """Frames the responses of one connection; remembers the last, as `ResponseReader` does."""

    __slots__ = ("_asked", "_framed", "_response")

    def __init__(self) -> None:
        self._response: Response | None = None
        self._asked = False, False, False
        self._framed = Framed(b"", False, None)

    def frame(self, response: Response, *, to_head: bool, http10: bool, keep_alive: bool) -> Framed:
        """As `frame_response`."""
        asked = to_head, http10, keep_alive
        if response is not self._response or asked != self._asked:
            self._framed = frame_response(response, *asked)
            self._response, self._asked = response, asked
        return self._framed


def frame_response(response: Response, to_head: bool, http10: bool, keep_alive: bool) -> Framed:
    """Decide how a response is read, and how it goes downstream (RFC 9112, section 6.3).

    What answers HEAD, and 204 and 304, has no body whatever the head says. A body that ends with
    its connection is sent on in chunks, so that its end can be told from an accident; HTTP/1.0
    knows no chunks, there the end of the connection says it.

    Args:
        response: a final one, of status 200 or more.
        to_head: whether the request was HEAD.
        http10: whether the client speaks HTTP/1.0.
        keep_alive: whether its connection may carry another response, for all else.
    """
    status, length = response.status, response.content_length
    has_body = not (to_head or status == 204 or status == 304)
    body: Callable[[], Body] | None = None
    lines = b""
    if length is not None:
        if status != 204:  # which must not announce a length (RFC 9110, section 8.6)
            lines = b"Content-Length: %d\r\n" % length
        if has_body:
            body = partial(Counted, length)
    elif has_body or (response.chunked and status != 204):
        if http10:
            keep_alive = False
        else:
            lines = b"Transfer-Encoding: chunked\r\n"
        if has_body and response.chunked:
            body = partial(Chunked, errors.BadUpstream, decode=http10)
        elif has_body:
            body = partial(UntilClose, encode=not http10)
    if not keep_alive:
        lines += b"Connection: close\r\n"
    elif http10:
        lines += b"Connection: keep-alive\r\n"
    return Framed(response.downstream_lines(lines), keep_alive, body)
