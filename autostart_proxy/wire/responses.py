"""Response heads: read strictly, written anew (RFC 9110 and RFC 9112). Pure.

The rules are those of `requests`; what breaks them is the service's fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from autostart_proxy import errors
from autostart_proxy.wire.grammar import (
    END_OF_HEAD,
    FIELDS,
    PLAIN_CONNECTION,
    TEXT,
    declared_body,
    without_named,
)

RESPONSE_HEAD_LIMIT_BYTES = 64 * 1024
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9][0-9])( " + TEXT + rb"*+)?\r\n" + FIELDS + rb"\r\n"
)
_RESPONSE_SPECIAL = re.compile(
    rb"\n(connection|content-length|transfer-encoding|x-request-id|upgrade|te|keep-alive"
    rb"|proxy-connection|proxy-authenticate):([^\r]*+)\r"
)


@dataclass(slots=True, frozen=True)
class Response:
    """A response head of a service. `lines` are the end-to-end lines, framing left out.

    `content_length` and `chunked` are as the head says, whatever the status: whether there is a
    body depends on the request too (`framing.answer_body`).
    """

    status: int
    reason: bytes
    lines: bytes
    content_length: int | None
    chunked: bool
    keep_alive: bool
    upgrade: bytes

    def downstream_head(self, request_id: bytes, framing: bytes) -> bytes:
        """Write the head that goes to the client; `framing` are whole lines."""
        return b"HTTP/1.1 %d%b\r\n%b%bX-Request-ID: %b\r\n\r\n" % (
            self.status,
            self.reason or b" ",
            self.lines,
            framing,
            request_id,
        )

    def interim_head(self) -> bytes:
        """Write an interim response (1xx), which has neither body nor framing."""
        return b"HTTP/1.1 %d%b\r\n%b\r\n" % (self.status, self.reason or b" ", self.lines)


class ResponseReader:
    """Reads the response heads of one connection; remembers the last, as `RequestReader` does."""

    __slots__ = ("_response", "_head")

    def __init__(self) -> None:
        self._head = b""
        self._response: Response | None = None

    def read(self, data: bytes) -> tuple[Response, int] | None:
        """Read a head.

        Args:
            data: everything that has arrived since the last message ended.
        Returns:
            The response and the length of its head; None while the head is incomplete.
        Raises:
            BadUpstream
        """
        response = self._response
        if response is not None and data.startswith(self._head):
            return response, len(self._head)
        end = data.find(END_OF_HEAD) + 4
        if end < 4:
            if len(data) > RESPONSE_HEAD_LIMIT_BYTES:
                raise errors.BadUpstream(detail="its head is too large")
            if not b"HTTP/1.".startswith(data[:7]):
                raise errors.BadUpstream(detail="its head is not valid HTTP/1.1")
            return None
        response = _read_response(data[:end])
        self._head, self._response = data[:end], response
        return response, end


def _read_response(head: bytes) -> Response:
    match = _RESPONSE.fullmatch(head)
    if match is None:
        raise errors.BadUpstream(detail="its head is not valid HTTP/1.1")
    if len(head) > RESPONSE_HEAD_LIMIT_BYTES:
        raise errors.BadUpstream(detail="its head is too large")
    minor, status, reason = match.groups()
    http10 = minor == b"0"
    kept: list[bytes] = []
    at = head.index(b"\n") + 1
    length = coding = connection = upgrade = None
    for found in _RESPONSE_SPECIAL.finditer(head.lower(), at - 1):
        first, last = found.span()
        if at <= first:
            kept.append(head[at : first + 1])
        at = last + 1
        match found[1]:
            case b"content-length":
                if length is not None:
                    raise errors.BadUpstream(detail="two Content-Length fields")
                length = found[2]
            case b"transfer-encoding":
                if coding is not None:
                    raise errors.BadUpstream(detail="two Transfer-Encoding fields")
                coding = found[2]
            case b"connection":
                connection = found[2] if connection is None else connection + b"," + found[2]
            case b"upgrade":
                upgrade = head[found.start(2) : last - 1].strip(b" \t")
            case _:
                pass
    kept.append(head[at:-2])
    lines = b"".join(kept)
    content_length, chunked = declared_body(length, coding, http10, errors.BadUpstream)
    keep_alive = not http10
    if connection is not None:
        options = {option.strip(b" \t") for option in connection.split(b",")}
        keep_alive = b"close" not in options and (not http10 or b"keep-alive" in options)
        if not options <= PLAIN_CONNECTION:
            lines = without_named(lines, options)
    return Response(
        int(status), reason or b"", lines, content_length, chunked, keep_alive, upgrade or b""
    )
