"""Request heads: read strictly, written anew (RFC 9110 and RFC 9112). Pure.

Rules:

- A head is taken only if every byte of it fits the grammar: no bare CR or LF, no NUL or other
  control byte, no folded line, no space before a colon. What is refused is never repaired, with one
  exception: bytes of a target beyond ASCII, which URIs do not have and clients send all the same,
  go on percent-encoded (RFC 3986, section 2.1).
- One validated host both routes and is forwarded; the authority of an absolute-form target wins.

What each field means, `request_fields` says. The tests compare both with llhttp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import assert_never

from autostart_proxy import errors
from autostart_proxy.wire.grammar import TOKEN, find_field
from autostart_proxy.wire.heads import (
    FIELD_LIMIT,
    FIRST_LINE_LIMIT_BYTES,
    Fault,
    GrowingHead,
    beginnings,
)
from autostart_proxy.wire.request_fields import (
    REQUEST_ID,
    SHOWN_LIMIT,
    RequestFields,
    client_of,
    read_authority,
    read_fields,
    shown,
)

_METHOD = TOKEN + rb"{1,32}+"
_VISIBLE = rb"[^\x00-\x20\x7f]"
_REQUEST_LINE = re.compile(rb"(" + _METHOD + rb") (" + _VISIBLE + rb"++) HTTP/1\.([01])\r\n")
_REQUEST_LINE_BEGUN = beginnings(
    _METHOD, rb" ", _VISIBLE + rb"++", rb" ", rb"H", rb"T", rb"T", rb"P",
    rb"/", rb"1", rb"\.", rb"[01]", rb"\r",
)  # fmt: skip
_LEGIBLE = re.compile(rb"(" + _METHOD + rb") (" + _VISIBLE + rb"*+)")
_LEGIBLE_BYTES = 8 * 1024
_TARGET = re.compile(rb"(?i)https?://([^/?]*)(.*)", re.DOTALL)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


@dataclass(slots=True)
class Request:
    """A request's head, ready to be routed and written anew.

    `target` is in origin-form, or `*`. `lines` are the end-to-end field lines, each with its CRLF.
    `request_id` is b"" unless a trusted peer sent one.
    """

    method: bytes
    target: bytes
    http10: bool
    fields: RequestFields
    lines: bytes
    request_id: bytes
    _upstream_lines: bytes

    @property
    def path(self) -> str:
        """The path without the query, cut where it is long; for the log."""
        return self.target[:SHOWN_LIMIT].partition(b"?")[0].decode()

    def upstream_head(self, request_id: bytes) -> bytes:
        """Write the head that goes to the service."""
        return b"%b %b HTTP/1.1\r\n%bX-Request-ID: %b\r\n\r\n" % (
            self.method,
            self.target,
            self._upstream_lines,
            request_id,
        )

    def field(self, name: bytes) -> bytes:
        """The first value of an end-to-end field, b"" where there is none."""
        return find_field(b"\r\n" + self.lines, name)


class _Known:
    """A header section that was read before, but for the value of its X-Request-ID."""

    __slots__ = ("_behind_id", "_request_id", "_until_id", "fields", "lines", "upstream_lines")

    def __init__(
        self, section: bytes, fields: RequestFields, lines: bytes, request_id: bytes
    ) -> None:
        self.fields = fields
        self.lines = lines
        self.upstream_lines = fields.upstream_lines(lines)
        self._request_id = request_id
        self._until_id, self._behind_id = section, b""
        if request_id:
            # Whitespace and spelling as common proxies send them; any other is compared whole.
            before, found, behind = section.partition(b"\r\nX-Request-ID: " + request_id + b"\r\n")
            if found and section.lower().count(b"\nx-request-id:") == 1:
                self._until_id = before + b"\r\nX-Request-ID: "
                self._behind_id = b"\r\n" + behind

    def find(self, data: bytes, start: int) -> tuple[int, bytes | None]:
        """Look for it in `data`.

        Returns:
            Where it ends, and the request id; None if it is another section.
        """
        if not data.startswith(self._until_id, start):
            return 0, None
        at = start + len(self._until_id)
        if not self._behind_id:
            return at, self._request_id
        end = data.find(b"\r\n", at)
        request_id = data[at:end]
        same = data.startswith(self._behind_id, end) and REQUEST_ID.fullmatch(request_id)
        return (end + len(self._behind_id), request_id) if same else (0, None)


class RequestReader:
    """Reads the request heads of one connection.

    The requests of one client mostly carry the same fields again and again, so the last header
    section and what it meant are remembered: comparing costs a third of looking at each line. The
    one field that differs every time behind a proxy, X-Request-ID, is left out of the comparison.

    Args:
        peer: the address the connection comes from, b"" for a unix socket.
        trusted: whether X-Forwarded-* and X-Request-ID from this peer are believed.
    """

    __slots__ = ("_growing", "_known", "_peer", "_trusted")

    def __init__(self, *, peer: bytes, trusted: bool) -> None:
        self._peer = peer
        self._trusted = trusted
        self._growing = GrowingHead(_REQUEST_LINE, _REQUEST_LINE_BEGUN, _refusal)
        self._known: _Known | None = None

    def __repr__(self) -> str:
        return f"<RequestReader of {'a trusted' if self._trusted else 'an unknown'} peer>"

    def read(self, data: bytes, at: int = 0) -> tuple[Request, int] | None:
        """Read a head.

        Args:
            data: what has arrived.
            at: where in it the last message ended.
        Returns:
            The request, and where its head ends; None while the head is incomplete.
        Raises:
            BadRequest, BadHost, UriTooLong, HeadersTooLarge
        """
        line, known = _REQUEST_LINE.match(data, at), self._known
        if line is not None and known is not None:
            # The minor version begins the section: it decides what some fields mean.
            start = line.end() - 3
            end, request_id = known.find(data, start)
            if request_id is not None:
                self._growing.checked = 0
                if start - at >= FIRST_LINE_LIMIT_BYTES:
                    raise errors.UriTooLong()
                return _request(line, known, request_id), end
        end = self._growing.end(data, at)
        if not end:
            return None
        if line is None:
            raise errors.BadRequest()
        fields, lines, request_id = read_fields(
            data[line.end() : end - 2], line[3] == b"0", self._peer, self._trusted
        )
        self._known = _Known(data[line.end() - 3 : end], fields, lines, request_id)
        return _request(line, self._known, request_id), end

    def salvage(self, data: bytes, at: int = 0) -> Request:
        """Make a request of a head that is refused, for the answer and the log: it goes nowhere.

        Whatever cannot be read is empty, the method `-`; nothing of it has been checked. What comes
        behind such a head has no end that could be told, so its connection cannot be kept.
        """
        found = _LEGIBLE.match(data, at)
        method, target = found.groups() if found else (b"-", b"")
        told = _legible_fields(data, found.end() if found else at)
        host = told.get(b"host", b"")
        if absolute := _TARGET.fullmatch(target):
            host, target = absolute[1].rpartition(b"@")[2], absolute[2]
        accept, request_id = told.get(b"accept", b""), told.get(b"x-request-id", b"")
        forwarded_for = told.get(b"x-forwarded-for", b"") if self._trusted else b""
        fields = RequestFields(
            host=shown(host),
            authority=b"",
            forwarded=b"",
            forwards_authority=False,
            content_length=None,
            chunked=True,
            has_body=True,
            keep_alive=False,
            upgrade=b"",
            expects_continue=False,
            client=client_of(forwarded_for, self._peer),
            user_agent=shown(told.get(b"user-agent", b"")),
            dropped=frozenset(),
        )
        return Request(
            method=method,
            target=_encoded(target[:SHOWN_LIMIT]),
            http10=False,
            fields=fields,
            lines=b"Accept: %b\r\n" % accept if accept else b"",
            request_id=request_id if self._trusted and REQUEST_ID.fullmatch(request_id) else b"",
            _upstream_lines=b"",
        )


def _legible_fields(data: bytes, at: int) -> dict[bytes, bytes]:
    """The first fields of a head that is refused, by their names; the first of each name counts."""
    section = data[at : at + _LEGIBLE_BYTES].partition(b"\r\n\r\n")[0]
    fields: dict[bytes, bytes] = {}
    for line in section.split(b"\n", FIELD_LIMIT)[1 : FIELD_LIMIT + 1]:
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name.lower(), value.strip(b" \t\r"))
    return fields


def _refusal(fault: Fault) -> errors.ProxyError:
    match fault:
        case Fault.BROKEN:
            return errors.BadRequest()
        case Fault.FIRST_LINE_TOO_LONG:
            return errors.UriTooLong()
        case Fault.TOO_LARGE:
            return errors.HeadersTooLarge()
        case _:
            assert_never(fault)


def _request(line: re.Match[bytes], known: _Known, request_id: bytes) -> Request:
    """Put request line and fields together."""
    method, target, minor = line.groups()
    fields, upstream_lines = known.fields, known.upstream_lines
    if target[:1] != b"/" or method == b"CONNECT":
        target, fields = _route(method, target, fields)
        upstream_lines = fields.upstream_lines(known.lines)
    if not fields.host:
        raise errors.BadHost()
    if not target.isascii():
        target = _encoded(target)
    return Request(method, target, minor == b"0", fields, known.lines, request_id, upstream_lines)


def _route(method: bytes, target: bytes, fields: RequestFields) -> tuple[bytes, RequestFields]:
    """Read a target that is not in origin-form (RFC 9112, sections 3.2 and 3.3)."""
    if method == b"CONNECT":
        raise errors.BadRequest("CONNECT is not supported.")
    if target == b"*" and method == b"OPTIONS":
        return target, fields
    absolute = _TARGET.fullmatch(target)
    if absolute is None:
        raise errors.BadRequest()
    host, authority = read_authority(absolute[1])
    target = absolute[2]
    if not target.startswith(b"/"):
        bare_options = method == b"OPTIONS" and not target
        target = b"*" if bare_options else b"/" + target
    return target, fields._replace(host=host, authority=authority)


def _encoded(target: bytes) -> bytes:
    """A target with its bytes beyond ASCII percent-encoded."""
    return _BEYOND_ASCII.sub(lambda found: b"%%%02X" % ord(found[0]), target)
