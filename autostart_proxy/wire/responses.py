"""Response heads: read strictly, written anew (RFC 9110 and RFC 9112). Pure.

The rules are those of `requests`; what breaks them is the service's fault. `X-Autostart` and
`X-Request-ID` end here: what a client reads there is the proxy's own word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from autostart_proxy import errors
from autostart_proxy.wire.grammar import (
    FIELDS,
    PLAIN_CONNECTION,
    TEXT,
    declared_body,
    without_named,
)
from autostart_proxy.wire.heads import Fault, GrowingHead, beginnings

_STATUS_LINE = rb"HTTP/1\.([01]) ([1-9][0-9][0-9])( " + TEXT + rb"*+)?\r\n"
_STATUS_LINE_BEGUN = beginnings(
    rb"H", rb"T", rb"T", rb"P", rb"/", rb"1", rb"\.", rb"[01]", rb" ",
    rb"[1-9]", rb"[0-9]", rb"[0-9]", rb"(?: " + TEXT + rb"*+)?", rb"\r",
)  # fmt: skip
_STATUS_LINE_ALONE = re.compile(_STATUS_LINE)
_RESPONSE = re.compile(_STATUS_LINE + FIELDS + rb"\r\n")

INTERIMS_AT_A_TIME = 32

# Searches a lower-cased copy, line by line.
_RESPONSE_SPECIAL = re.compile(
    rb"\n(connection|content-length|transfer-encoding|x-request-id|x-autostart|upgrade|te"
    rb"|keep-alive|proxy-connection|proxy-authenticate):([^\r]*+)\r"
)


@dataclass(slots=True, frozen=True)
class Response:
    """A response head of a service. `lines` are the end-to-end lines, framing left out.

    `content_length` and `chunked` are as the head says, whatever the status: whether there is a
    body depends on the request too (`framing.frame_response`).
    """

    status: int
    reason: bytes
    lines: bytes
    content_length: int | None
    chunked: bool
    keep_alive: bool
    upgrade: bytes

    @property
    def is_interim(self) -> bool:
        return self.status < 200 and self.status != 101

    def downstream_lines(self, framing: bytes) -> bytes:
        """Write the head that goes to the client, but for the empty line that ends it.

        Args:
            framing: whole lines.
        """
        return b"HTTP/1.1 %d%b\r\n%b%b" % (
            self.status,
            self.reason or b" ",
            self.lines,
            framing,
        )

    def interim_head(self) -> bytes:
        """Write an interim response (1xx), which has neither body nor framing."""
        return self.downstream_lines(b"\r\n")


class ResponseReader:
    """Reads the response heads of one connection; remembers the last, as `RequestReader` does."""

    __slots__ = ("_growing", "_head", "_response")

    def __init__(self) -> None:
        self._growing = GrowingHead(_STATUS_LINE_ALONE, _STATUS_LINE_BEGUN, _refusal)
        self._head = b""
        self._response: Response | None = None

    def read(self, data: bytes, at: int = 0) -> tuple[Response, int] | None:
        """Read a head.

        Args:
            data: what has arrived.
            at: where in it the last message ended.
        Returns:
            The response, and where its head ends; None while the head is incomplete.
        Raises:
            BadUpstream
        """
        response = self._response
        if response is not None and data.startswith(self._head, at):
            self._growing.checked = 0
            return response, at + len(self._head)
        checked = self._growing.checked
        end = self._growing.end(data, at)
        if not end:
            if self._growing.checked > checked:
                # Nothing that follows makes right what is wrong of its framing already.
                _read_response(data[at : at + self._growing.checked] + b"\r\n")
            return None
        head = data[at:end]
        response = _read_response(head)
        self._head, self._response = head, response
        return response, end

    def read_interims(self, data: bytes) -> tuple[list[bytes], int, bool]:
        """Read interim responses (1xx but 101), of many only so many at a time.

        Args:
            data: begins with one.
        Returns:
            Their heads as they go on, where the last of them ends, and whether another whole head
            follows there.
        Raises:
            BadUpstream
        """
        heads: list[bytes] = []
        at = 0
        while found := self.read(data, at):
            response, end = found
            if not response.is_interim or len(heads) == INTERIMS_AT_A_TIME:
                return heads, at, True
            heads.append(response.interim_head())
            at = end
        return heads, at, False


def _refusal(fault: Fault) -> errors.BadUpstream:
    if fault is Fault.BROKEN:
        return errors.BadUpstream(detail="its head is not valid HTTP/1.1")
    return errors.BadUpstream(
        "The service gave an answer whose headers are too large.", detail=fault.value
    )


def _read_response(head: bytes) -> Response:
    match = _RESPONSE.fullmatch(head)
    if match is None:
        raise _refusal(Fault.BROKEN)
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
