"""Message heads: read strictly, written anew (RFC 9110 and RFC 9112). Pure.

Rules:

- A head is taken only if every byte of it fits the grammar: no bare CR or LF, no NUL or other
  control byte, no folded line, no space before a colon. What is refused is never repaired.
- Framing must be beyond doubt: at most one Content-Length (1*DIGIT), or exactly one
  Transfer-Encoding that is `chunked`, never both, never in HTTP/1.0.
- One validated host both routes and is forwarded; the authority of an absolute-form target wins.
- Fields that concern one connection end here, those that `Connection` names included. What the
  proxy knows better (X-Forwarded-*, Forwarded, X-Real-IP, X-Request-ID) is believed only from a
  trusted peer. The same names with underscores are dropped: CGI-like servers cannot tell the two
  apart. Every other field passes byte for byte and in order.

One pass of a regular expression checks the grammar, a second finds the few fields that matter
here, so that a head costs microseconds. The tests compare it with llhttp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from autostart_proxy import errors
from autostart_proxy.wire.grammar import (
    BROKEN_LINES,
    END_OF_HEAD,
    FIELDS,
    LINE_LIMIT_BYTES,
    PLAIN_CONNECTION,
    REQUEST_HEAD_LIMIT_BYTES,
    TOKEN,
    declared_body,
    find_field,
    without_named,
)
from autostart_proxy.wire.hosts import canonical_host

FIELD_LIMIT = 100
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb"{1,32}+) ([^\x00-\x20\x7f]++) HTTP/1\.([01])\r\n")
_METHOD = re.compile(rb"(" + TOKEN + rb"{1,32}+) ")
_REQUEST_FIELDS = re.compile(FIELDS + rb"\r\n")

# Both search a lower-cased copy, line by line.
_REQUEST_SPECIAL = re.compile(
    rb"\n(host|connection|content[-_]length|transfer[-_]encoding|x[-_]forwarded[-_][^:]++"
    rb"|x[-_]request[-_]id|x[-_]real[-_]ip|forwarded|upgrade|expect|te|keep[-_]alive"
    rb"|proxy[-_]connection|proxy[-_]authorization|http2[-_]settings):([^\r]*+)\r"
)

_TARGET = re.compile(rb"(?i)https?://([^/?]*)(.*)", re.DOTALL)
_UPGRADE = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?")
_REQUEST_ID = re.compile(rb"[0-9A-Za-z._:@/+=-]{1,128}")
_ADDRESS = re.compile(rb"[0-9A-Fa-f.:]{2,45}")


@dataclass(slots=True, frozen=True)
class RequestFields:
    """A request's header section, understood.

    `host` is canonical (lower-case, no port, no trailing dot) and finds the service; `authority`
    is the same with its port and goes upstream as Host. `lines` are the end-to-end field lines,
    each with its CRLF. `content_length` is None where there is none. `upgrade` are the protocols
    asked for, b"" for none. `client` is the address for the log. `forwarded` are X-Forwarded-*
    and Forwarded as they go upstream, without X-Forwarded-Host where that is the authority.
    """

    host: str
    authority: bytes
    lines: bytes
    forwarded: bytes
    forwards_authority: bool
    content_length: int | None
    chunked: bool
    has_body: bool
    keep_alive: bool
    upgrade: bytes
    expects_continue: bool
    client: bytes

    def upstream_lines(self) -> bytes:
        """Everything that goes upstream between the request line and X-Request-ID."""
        framing = b""
        if self.chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif self.content_length is not None:
            framing = b"Content-Length: %d\r\n" % self.content_length
        if self.upgrade:
            framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % self.upgrade
        host = b"X-Forwarded-Host: %b\r\n" % self.authority if self.forwards_authority else b""
        return b"Host: %b\r\n%b%b%b%b" % (
            self.authority,
            self.lines,
            framing,
            self.forwarded,
            host,
        )


@dataclass(slots=True)
class Request:
    """A request's head, ready to be routed and written anew.

    `target` is in origin-form, or `*`. `request_id` is b"" unless a trusted peer sent one.
    """

    method: bytes
    target: bytes
    http10: bool
    fields: RequestFields
    request_id: bytes
    _upstream_lines: bytes

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
        return find_field(b"\r\n" + self.fields.lines, name)


def _check_limits(head: bytes) -> None:
    start = head.find(b"\r\n")
    if start > LINE_LIMIT_BYTES or start < 0:
        raise errors.UriTooLong()
    if len(head) - start - 2 > REQUEST_HEAD_LIMIT_BYTES:
        raise errors.HeadersTooLarge()
    if max(map(len, head.split(b"\r\n"))) > LINE_LIMIT_BYTES:
        raise errors.HeadersTooLarge()


class _Known:
    """A header section that was read before, but for the value of its X-Request-ID."""

    __slots__ = ("_behind_id", "_request_id", "_until_id", "fields", "upstream_lines")

    def __init__(self, section: bytes, fields: RequestFields, request_id: bytes) -> None:
        self.fields = fields
        self.upstream_lines = fields.upstream_lines()
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
        same = data.startswith(self._behind_id, end) and _REQUEST_ID.fullmatch(request_id)
        return (end + len(self._behind_id), request_id) if same else (0, None)


class RequestReader:
    """Reads the request heads of one connection.

    The requests of one client mostly carry the same fields again and again, so the last header
    section and what it meant are remembered: comparing costs a fiftieth of reading. The one field
    that differs every time behind a proxy, X-Request-ID, is left out of the comparison.

    Args:
        peer: the address the connection comes from, b"" for a unix socket.
        trusted: whether X-Forwarded-* and X-Request-ID from this peer are believed.
    """

    __slots__ = ("_checked_bytes", "_known", "_peer", "_trusted")

    def __init__(self, *, peer: bytes, trusted: bool) -> None:
        self._peer = peer
        self._trusted = trusted
        self._checked_bytes = 0
        self._known: _Known | None = None

    def __repr__(self) -> str:
        return f"<RequestReader of {'a trusted' if self._trusted else 'an unknown'} peer>"

    def read(self, data: bytes) -> tuple[Request, int] | None:
        """Read a head.

        Args:
            data: everything that has arrived since the last message ended.
        Returns:
            The request and the length of its head; None while the head is incomplete.
        Raises:
            BadRequest, BadHost, UriTooLong, HeadersTooLarge
        """
        line = _REQUEST_LINE.match(data)
        if line is None:
            return self._read_anew(data, None)
        known = self._known
        if known is not None:
            # The minor version begins the section: it decides what some fields mean.
            start = line.end() - 3
            end, request_id = known.find(data, start)
            if request_id is not None:
                if start > LINE_LIMIT_BYTES - 1:
                    raise errors.UriTooLong()
                return _request(line, known, request_id), end
        return self._read_anew(data, line)

    def _read_anew(self, data: bytes, line: re.Match[bytes] | None) -> tuple[Request, int] | None:
        end = data.find(END_OF_HEAD) + 4
        if end < 4:
            self._check_unfinished(data)
            return None
        self._checked_bytes = 0
        if end > LINE_LIMIT_BYTES:
            _check_limits(data[:end])
        if line is None:
            raise errors.BadRequest()
        section = data[line.end() - 3 : end]
        fields, request_id = _read_fields(section, line[3] == b"0", self._peer, self._trusted)
        self._known = _Known(section, fields, request_id)
        return _request(line, self._known, request_id), end

    def _check_unfinished(self, data: bytes) -> None:
        """Refuse a head that can no longer become valid before it is complete.

        A client that ends its lines with bare LF would otherwise wait for its time to run out.
        """
        if BROKEN_LINES.search(data, max(0, self._checked_bytes - 1)):
            raise errors.BadRequest()
        self._checked_bytes = len(data)
        if len(data) > LINE_LIMIT_BYTES:
            _check_limits(data)


def _request(line: re.Match[bytes], known: _Known, request_id: bytes) -> Request:
    """Put request line and fields together."""
    method, target, minor = line.groups()
    fields, lines = known.fields, known.upstream_lines
    if target[:1] != b"/" or method == b"CONNECT":
        target, fields = _route(method, target, fields)
        lines = fields.upstream_lines()
    if not fields.host:
        raise errors.BadHost()
    return Request(method, target, minor == b"0", fields, request_id, lines)


def _read_fields(
    section: bytes, http10: bool, peer: bytes, trusted: bool
) -> tuple[RequestFields, bytes]:
    """Understand a header section, which begins with the end of the request line.

    Returns:
        The fields, and the request id that a trusted peer gave.
    """
    if _REQUEST_FIELDS.fullmatch(section, 3) is None:
        raise errors.BadRequest()
    if section.count(b"\n") > FIELD_LIMIT + 2:
        raise errors.HeadersTooLarge()
    kept: list[bytes] = []
    hosts: list[bytes] = []
    connection = length = coding = upgrade = expect = request_id = None
    forwarded_for = forwarded_host = forwarded_proto = forwarded = b""
    at = 3
    for found in _REQUEST_SPECIAL.finditer(section.lower(), 2):
        first, last = found.span()
        if at <= first:
            kept.append(section[at : first + 1])
        at = last + 1
        name, value = found.groups()
        match name:
            case b"host":
                hosts.append(value)
            case b"connection":
                connection = value if connection is None else connection + b"," + value
            case b"x-forwarded-for" if trusted:
                forwarded_for = _join(forwarded_for, value)
            case b"x-forwarded-proto" if trusted:
                forwarded_proto = forwarded_proto or value.strip(b" \t")
            case b"x-forwarded-host" if trusted:
                forwarded_host = forwarded_host or value.strip(b" \t")
            case b"forwarded" if trusted:
                forwarded = _join(forwarded, section[found.start(2) : last - 1])
            case b"content-length":
                length = _once(length, value)
            case b"transfer-encoding":
                coding = _once(coding, value)
            case b"upgrade":
                value = section[found.start(2) : last - 1]
                upgrade = value if upgrade is None else upgrade + b"," + value
            case b"expect":
                expect = _once(expect, value)
            case b"x-request-id" if trusted:
                request_id = section[found.start(2) : last - 1].strip(b" \t")
            case _ if trusted and name.startswith((b"x-forwarded-", b"x-real-ip")):
                kept.append(section[first + 1 : last + 1])
            case _:
                pass
    kept.append(section[at:-2])
    lines = b"".join(kept)

    content_length, chunked = declared_body(length, coding, http10, errors.BadRequest)
    keep_alive = not http10
    wants_upgrade = False
    if connection is not None:
        options = {option.strip(b" \t") for option in connection.split(b",")}
        keep_alive = b"close" not in options and (not http10 or b"keep-alive" in options)
        wants_upgrade = b"upgrade" in options and not http10
        if not options <= PLAIN_CONNECTION:
            lines = without_named(lines, options)
    if len(hosts) != 1 and (hosts or not http10):
        raise errors.BadHost()
    host, authority = _read_authority(hosts[0].strip(b" \t")) if hosts else ("", b"")
    protocols = _protocols(upgrade) if upgrade is not None and wants_upgrade else b""
    if protocols and (chunked or content_length):
        raise errors.BadRequest("A request that asks for an upgrade cannot have a body.")
    if expect is not None and expect.strip(b" \t") != b"100-continue":
        raise errors.BadRequest("This expectation is not supported.")
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = b""
    last_hop = forwarded_for.rpartition(b",")[2].strip(b" \t")
    fields = RequestFields(
        host,
        authority,
        lines,
        _own_fields(forwarded_for, forwarded_proto, forwarded_host, forwarded, peer),
        not forwarded_host,
        content_length,
        chunked,
        chunked or bool(content_length),
        keep_alive,
        protocols,
        expect is not None and not http10,
        last_hop if _ADDRESS.fullmatch(last_hop) else peer,
    )
    return fields, request_id


def _own_fields(
    forwarded_for: bytes, proto: bytes, host: bytes, forwarded: bytes, peer: bytes
) -> bytes:
    """X-Forwarded-For with the peer appended; the rest as a trusted peer says, else our own."""
    hops = _join(forwarded_for, peer)
    lines = b"X-Forwarded-Proto: %b\r\n" % (proto or b"http")
    if hops:
        lines = b"X-Forwarded-For: %b\r\n%b" % (hops, lines)
    if host:
        lines += b"X-Forwarded-Host: %b\r\n" % host
    if forwarded:
        node = b'"[%b]"' % peer if b":" in peer else peer or b"unknown"
        lines += b"Forwarded: %b, for=%b\r\n" % (forwarded, node)
    return lines


def _join(one: bytes, other: bytes) -> bytes:
    other = other.strip(b" \t")
    return one + b", " + other if one and other else one or other


def _once(before: bytes | None, value: bytes) -> bytes:
    if before is not None:
        raise errors.BadRequest()
    return value


def _route(method: bytes, target: bytes, fields: RequestFields) -> tuple[bytes, RequestFields]:
    """Read a target that is not in origin-form (RFC 9112, sections 3.2 and 3.3)."""
    if method == b"CONNECT":
        raise errors.BadRequest("CONNECT is not supported.")
    if target == b"*" and method == b"OPTIONS":
        return target, fields
    absolute = _TARGET.fullmatch(target)
    if absolute is None:
        raise errors.BadRequest()
    host, authority = _read_authority(absolute[1])
    target = absolute[2]
    if not target.startswith(b"/"):
        bare_options = method == b"OPTIONS" and not target
        target = b"*" if bare_options else b"/" + target
    return target, replace(fields, host=host, authority=authority)


@lru_cache(maxsize=1024)
def _read_authority(value: bytes) -> tuple[str, bytes]:
    """The canonical host, and the same with its port: what is forwarded as Host."""
    host = canonical_host(value)
    port = value.rpartition(b":")[2]
    return host, b"%b:%b" % (host.encode(), port) if port.isdigit() else host.encode()


def _protocols(value: bytes) -> bytes:
    """The protocols of an Upgrade field without h2c: the relay speaks HTTP/1.1 only."""
    wanted = [protocol.strip(b" \t") for protocol in value.split(b",")]
    if not all(map(_UPGRADE.fullmatch, wanted)):
        raise errors.BadRequest()
    return b", ".join(protocol for protocol in wanted if protocol.lower() != b"h2c")


def salvage(data: bytes, peer: bytes) -> Request:
    """Make a request of a head that is refused, for the answer and the log: it goes nowhere.

    Method and Accept are as far as they can be read, `-` and nothing where they cannot. What comes
    behind such a head has no end that could be told, so its connection cannot be kept.
    """
    method = _METHOD.match(data)
    accept = find_field(data, b"accept")
    lines = b"Accept: %b\r\n" % accept if accept else b""
    fields = RequestFields(
        host="",
        authority=b"",
        lines=lines,
        forwarded=b"",
        forwards_authority=False,
        content_length=None,
        chunked=True,
        has_body=True,
        keep_alive=False,
        upgrade=b"",
        expects_continue=False,
        client=peer,
    )
    return Request(method[1] if method else b"-", b"", False, fields, b"", b"")
