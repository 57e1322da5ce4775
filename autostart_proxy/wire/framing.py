"""Message bodies: where they end, and nothing beyond (RFC 9112, sections 6 and 7). Pure.

`request_body` and `frame_response` decide which framing a message has, the classes follow it.

A body is fed the bytes that arrive and gives back those that may be passed on. Once `done`,
`surplus` holds what came behind it, which belongs to the next message or to nobody. Bytes that
are not yet known to be valid (half a chunk-size line) are kept back, so that nothing is sent on
beyond the valid prefix.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from autostart_proxy import errors
from autostart_proxy.wire.grammar import BROKEN_LINES, REQUEST_HEAD_LIMIT_BYTES, clean_trailers
from autostart_proxy.wire.requests import RequestFields
from autostart_proxy.wire.responses import Response

LAST_CHUNK = b"0\r\n\r\n"

CHUNK_LINE_LIMIT_BYTES = 256
"""A chunk-size line with its extensions; more serves only to waste memory and time."""

# 15 hex digits stay below 2**60: no reader behind us can overflow.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")


class Body(Protocol):
    """What of a stream belongs to one message.

    `size` counts the payload seen or announced so far, in bytes.
    """

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
            `LAST_CHUNK` must follow the end.
    """

    __slots__ = ("_encode", "done", "size", "surplus")

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


class Chunked:
    """A chunked body, passed on chunk by chunk, or decoded for readers of HTTP/1.0.

    Args:
        refusal: what to raise where the framing is broken.
        decode: give back the payload alone.
    """

    __slots__ = ("_data_left", "_decode", "_in_trailers", "_kept", "_refusal", "done", "size",
                 "surplus")  # fmt: skip

    def __init__(self, refusal: type[errors.ProxyError], *, decode: bool = False) -> None:
        self._refusal: Final = refusal
        self._decode: Final = decode
        self._data_left = -1  # of this chunk; -1: a size line comes next; 0: its CRLF comes next
        self._in_trailers = False
        self._kept = b""
        self.done = False
        self.surplus = b""
        self.size = 0

    def __repr__(self) -> str:
        where = "done" if self.done else "trailers" if self._in_trailers else "chunks"
        return f"<Chunked {where}, {self.size} bytes announced, {len(self._kept)} kept back>"

    def feed(self, data: bytes) -> bytes:
        data = self._kept + data if self._kept else data
        self._kept = b""
        out: list[bytes] = []
        passed = at = 0  # data[passed:at] is valid and not yet in `out`
        while not self._in_trailers and at < len(data):
            if self._data_left > 0:
                step = min(self._data_left, len(data) - at)
                self._data_left -= step
                if self._decode:
                    out.append(data[at : at + step])
                at += step
            elif self._data_left == 0:
                if not b"\r\n".startswith(data[at : at + 2]):
                    raise self._refusal(detail="a chunk is longer than its size")
                if len(data) - at < 2:
                    break
                at += 2
                self._data_left = -1
            else:
                line = _CHUNK_LINE.match(data, at)
                if line is None:
                    self._check_unfinished_line(data, at)
                    break
                size = int(line[1], 16)
                if size == 0:
                    self._in_trailers = True
                    break
                if line.end() - at > CHUNK_LINE_LIMIT_BYTES:
                    raise self._refusal(detail="a chunk-size line is too long")
                self.size += size
                self._data_left = size
                at = line.end()
        if not self._decode:
            out.append(data[passed:at] if at < len(data) else data)
        if self._in_trailers:
            out.append(self._finish(data[at:]))
        else:
            self._kept = data[at:]
        return b"".join(out) if len(out) > 1 else out[0] if out else b""

    def _check_unfinished_line(self, data: bytes, at: int) -> None:
        """Refuse a size line that no further byte can make valid."""
        rest = data[at:]
        if b"\n" in rest or len(rest) > CHUNK_LINE_LIMIT_BYTES:
            raise self._refusal(detail="a chunk-size line is not valid")
        whole = rest + b"\n" if rest.endswith(b"\r") else rest + b"\r\n"
        # "5 " may still become "5 ;extension".
        if not (_CHUNK_LINE.fullmatch(whole) or _CHUNK_LINE.fullmatch(rest + b";\r\n")):
            raise self._refusal(detail="a chunk-size line is not valid")

    def _finish(self, data: bytes) -> bytes:
        """Read the last chunk and the trailers, which are kept until they are complete."""
        start = data.index(b"\n") + 1
        if start > CHUNK_LINE_LIMIT_BYTES:
            raise self._refusal(detail="a chunk-size line is too long")
        # An empty section ends with the line break of the last chunk itself.
        end = data.find(b"\r\n\r\n", start - 2) + 2
        if end < start:  # not found
            if BROKEN_LINES.search(data, start):
                raise self._refusal(detail="a trailer is not valid")
            end = len(data)
            self._kept = data
        section = data[start:end]
        if len(section) > REQUEST_HEAD_LIMIT_BYTES:
            raise self._too_large()
        if self._kept:
            return b""
        trailers = clean_trailers(section)
        if trailers is None:
            raise self._refusal(detail="a trailer is not valid")
        self.surplus = data[end + 2 :]
        self.done = True
        return b"" if self._decode else b"0\r\n" + trailers + b"\r\n"

    def _too_large(self) -> errors.ProxyError:
        if self._refusal is errors.BadRequest:
            return errors.HeadersTooLarge("The request trailers are too large.")
        return self._refusal(detail="its trailers are too large")


def request_body(fields: RequestFields) -> Body | None:
    """How a request's body is read; None where there is none."""
    if fields.chunked:
        return Chunked(errors.BadRequest)
    return Counted(fields.content_length) if fields.content_length else None


def frame_response(
    response: Response, *, to_head: bool, http10: bool, keep_alive: bool
) -> tuple[Body | None, bytes, bool]:
    """Decide how a response is read, and how it goes downstream (RFC 9112, section 6.3).

    What answers HEAD, and 204 and 304, has no body whatever the head says. A body that ends with
    its connection is sent on in chunks, so that its end can be told from an accident; HTTP/1.0
    knows no chunks, there the end of the connection says it.

    Args:
        response: a final one, of status 200 or more.
        to_head: whether the request was HEAD.
        http10: whether the client speaks HTTP/1.0.
        keep_alive: whether its connection may carry another response, for all else.
    Returns:
        The body, None where no byte of one follows; the field lines that announce it downstream,
        `Connection` included; and whether the connection there stays open.
    """
    status, length = response.status, response.content_length
    has_body = not (to_head or status == 204 or status == 304)
    body: Body | None = None
    lines = b""
    if length is not None:
        if status != 204:  # which must not announce a length (RFC 9110, section 8.6)
            lines = b"Content-Length: %d\r\n" % length
        if has_body:
            body = Counted(length)
    elif has_body or (response.chunked and status != 204):
        if http10:
            keep_alive = False
        else:
            lines = b"Transfer-Encoding: chunked\r\n"
        if has_body:
            if response.chunked:
                body = Chunked(errors.BadUpstream, decode=http10)
            else:
                body = UntilClose(encode=not http10)
    if not keep_alive:
        lines += b"Connection: close\r\n"
    elif http10:
        lines += b"Connection: keep-alive\r\n"
    return body, lines, keep_alive
