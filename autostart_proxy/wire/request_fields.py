"""The header section of a request: which fields end here, and what they mean. Pure.

- Framing must be beyond doubt: at most one Content-Length (1*DIGIT), or exactly one
  Transfer-Encoding that is `chunked`, never both, never in HTTP/1.0.
- Fields that concern one connection end here, those that `Connection` names included. What the
  proxy knows better (X-Forwarded-For, -Host, -Port and -Proto, X-Real-IP, X-Request-ID) is believed
  only from a trusted peer. Other X-Forwarded-* and Forwarded end here whoever sent them: a trusted
  peer that does not know them hands on what its client made up, and services believe it. The same
  names with underscores are dropped: CGI-like servers cannot tell the two apart. Every other field
  passes byte for byte and in order.

Most lines have been seen before, from this client or another, and so has what they mean together.
Both are remembered, within bounds: a section with one new line costs half of one that is all new.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from autostart_proxy import errors
from autostart_proxy.wire.grammar import (
    PLAIN_CONNECTION,
    TEXT,
    TOKEN,
    declared_body,
    without_named,
)
from autostart_proxy.wire.hosts import canonical_host

SHOWN_LIMIT = 200
"""Characters of what a client claims (its path, its program) that are kept for the log."""

_REMEMBERED_LINES = 1024
_REMEMBERED_LINE_BYTES = 256
_REMEMBERED_MEANINGS = 512
_REMEMBERED_SECTION_BYTES = 2048
_LIST_LIMIT = 100
"""Items of a list that is read item by item."""

_LINE = re.compile(rb"(" + TOKEN + rb"++):(" + TEXT + rb"*+)")
_NOTED = re.compile(
    rb"host|connection|content[-_]length|transfer[-_]encoding|x[-_]forwarded(?:[-_].++)?"
    rb"|x[-_]request[-_]id|x[-_]real[-_]ip|forwarded|upgrade|expect|te|keep[-_]alive"
    rb"|proxy[-_]connection|proxy[-_]authorization|http2[-_]settings|user-agent"
)
_PASSING_FROM_TRUSTED = frozenset([b"x-forwarded-port", b"x-real-ip"])
_UPGRADE = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?")
REQUEST_ID = re.compile(rb"[0-9A-Za-z._:@/+=-]{1,128}")
_ADDRESS = re.compile(rb"[0-9A-Fa-f.:]{2,45}")


class RequestFields(NamedTuple):
    """What the fields of a request mean here.

    `host` is canonical (lower-case, no port, no trailing dot) and finds the service; `authority`
    is the same with its port and goes upstream as Host. `forwarded` are X-Forwarded-For, -Proto
    and -Host as they go upstream, the last left out where it is the authority.
    `content_length` is None where there is none. `upgrade` are the protocols asked for, b"" for
    none. `client` and `user_agent` are for the log. `dropped` are the names in `Connection`.
    """

    host: str
    authority: bytes
    forwarded: bytes
    forwards_authority: bool
    content_length: int | None
    chunked: bool
    has_body: bool
    keep_alive: bool
    upgrade: bytes
    expects_continue: bool
    client: str
    user_agent: str
    dropped: frozenset[bytes]

    def upstream_lines(self, lines: bytes) -> bytes:
        """Everything that goes upstream between the request line and X-Request-ID.

        Args:
            lines: the end-to-end field lines, each with its CRLF.
        """
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
            lines,
            framing,
            self.forwarded,
            host,
        )


class Noted(NamedTuple):
    """A field that means something here; `passes` if its line goes on to the service as it is."""

    name: bytes
    value: bytes
    passes: bool


def read_fields(
    section: bytes, http10: bool, peer: bytes, trusted: bool
) -> tuple[RequestFields, bytes, bytes]:
    """Understand a header section.

    Args:
        section: the lines behind the request line, each with its CRLF.
        peer, trusted: as `RequestReader` has them.
    Returns:
        What they mean; the lines that pass to the service; the request id of a trusted peer, b""
        where it gave none.
    Raises:
        BadRequest, BadHost
    """
    known = _known_trusted_line if trusted else _known_line
    kept: list[bytes] = []
    noted: list[Noted] = []
    request_id = b""
    lines = section.split(b"\r\n")
    lines.pop()
    for line in lines:
        field = known(line) if len(line) <= _REMEMBERED_LINE_BYTES else read_line(line, trusted)
        if field is None:
            kept.append(line)
        elif field.name == b"x-request-id":
            request_id = field.value
        else:
            noted.append(field)
            if field.passes:
                kept.append(line)
    understand = _known_meaning if len(section) <= _REMEMBERED_SECTION_BYTES else understood
    fields = understand(tuple(noted), http10, peer, trusted)
    kept.append(b"")
    passing = b"\r\n".join(kept)
    if fields.dropped:
        passing = without_named(passing, fields.dropped)
    if not trusted or not REQUEST_ID.fullmatch(request_id):
        request_id = b""
    return fields, passing, request_id


def read_line(line: bytes, trusted: bool) -> Noted | None:
    """Read a field line without its CRLF; None for a field that means nothing here and passes.

    Raises:
        BadRequest
    """
    found = _LINE.fullmatch(line)
    if found is None:
        raise errors.BadRequest()
    name = found[1].lower()
    if _NOTED.fullmatch(name) is None:
        return None
    passes = name == b"user-agent" or (trusted and name in _PASSING_FROM_TRUSTED)
    return Noted(name, found[2].strip(b" \t"), passes)


@lru_cache(maxsize=_REMEMBERED_LINES)
def _known_line(line: bytes) -> Noted | None:
    return read_line(line, False)


@lru_cache(maxsize=_REMEMBERED_LINES)
def _known_trusted_line(line: bytes) -> Noted | None:
    return read_line(line, True)


def understood(noted: tuple[Noted, ...], http10: bool, peer: bytes, trusted: bool) -> RequestFields:
    """Put together what the fields of a request mean.

    Raises:
        BadRequest, BadHost
    """
    hosts: list[bytes] = []
    connection = length = coding = upgrade = expect = None
    forwarded_for = forwarded_host = forwarded_proto = agent = b""
    for name, value, _ in noted:
        match name:
            case b"host":
                hosts.append(value)
            case b"user-agent":
                agent = agent or value
            case b"connection":
                connection = value if connection is None else connection + b"," + value
            case b"x-forwarded-for" if trusted:
                forwarded_for = _join(forwarded_for, value)
            case b"x-forwarded-proto" if trusted:
                forwarded_proto = forwarded_proto or value.lower()
            case b"x-forwarded-host" if trusted:
                forwarded_host = forwarded_host or value.lower()
            case b"content-length":
                length = _once(length, value)
            case b"transfer-encoding":
                coding = _once(coding, value.lower())
            case b"upgrade":
                upgrade = value if upgrade is None else upgrade + b"," + value
            case b"expect":
                expect = _once(expect, value.lower())
            case _:
                pass
    content_length, chunked = declared_body(length, coding, http10, errors.BadRequest)
    options = _options(connection) if connection is not None else frozenset()
    keep_alive = b"close" not in options and (not http10 or b"keep-alive" in options)
    if len(hosts) != 1 and (hosts or not http10):
        raise errors.BadHost()
    host, authority = read_authority(hosts[0]) if hosts else ("", b"")
    wants_upgrade = upgrade is not None and b"upgrade" in options and not http10
    protocols = _protocols(upgrade) if upgrade is not None and wants_upgrade else b""
    has_body = chunked or bool(content_length)
    if protocols and has_body:
        raise errors.BadRequest("A request that asks for an upgrade cannot have a body.")
    if expect is not None and expect != b"100-continue":
        raise errors.BadRequest("This expectation is not supported.")
    return RequestFields(
        host,
        authority,
        _own_fields(forwarded_for, forwarded_proto, forwarded_host, peer),
        not forwarded_host,
        content_length,
        chunked,
        has_body,
        keep_alive,
        protocols,
        expect is not None and not http10,
        client_of(forwarded_for, peer),
        shown(agent),
        frozenset() if options <= PLAIN_CONNECTION else options,
    )


_known_meaning = lru_cache(maxsize=_REMEMBERED_MEANINGS)(understood)


def shown(claim: bytes) -> str:
    """What a client claims, as text for the log: a bounded part of it, whatever bytes it holds."""
    return claim[:SHOWN_LIMIT].decode("utf-8", "backslashreplace")


def client_of(forwarded_for: bytes, peer: bytes) -> str:
    """Whom a trusted proxy names as its client, else the peer; `unix` where that has no address."""
    last_hop = forwarded_for.rpartition(b",")[2].strip(b" \t")
    return (last_hop if _ADDRESS.fullmatch(last_hop) else peer).decode() or "unix"


@lru_cache(maxsize=1024)
def read_authority(value: bytes) -> tuple[str, bytes]:
    """The canonical host, and the same with its port: what is forwarded as Host.

    Raises:
        BadHost
    """
    host = canonical_host(value)
    port = value.rpartition(b":")[2]
    return host, b"%b:%b" % (host.encode(), port) if port.isdigit() else host.encode()


def _own_fields(forwarded_for: bytes, proto: bytes, host: bytes, peer: bytes) -> bytes:
    """X-Forwarded-For with the peer appended; the rest as a trusted peer says, else our own."""
    hops = _join(forwarded_for, peer)
    lines = b"X-Forwarded-Proto: %b\r\n" % (proto or b"http")
    if hops:
        lines = b"X-Forwarded-For: %b\r\n%b" % (hops, lines)
    if host:
        lines += b"X-Forwarded-Host: %b\r\n" % host
    return lines


def _join(one: bytes, other: bytes) -> bytes:
    return one + b", " + other if one and other else one or other


def _once(before: bytes | None, value: bytes) -> bytes:
    if before is not None:
        raise errors.BadRequest()
    return value


def _items(value: bytes) -> list[bytes]:
    if value.count(b",") >= _LIST_LIMIT:
        raise errors.BadRequest()
    return [item.strip(b" \t") for item in value.split(b",")]


def _options(connection: bytes) -> frozenset[bytes]:
    return frozenset(_items(connection.lower()))


def _protocols(upgrade: bytes) -> bytes:
    """The protocols of an Upgrade field without h2c: the relay speaks HTTP/1.1 only."""
    wanted = _items(upgrade)
    if not all(map(_UPGRADE.fullmatch, wanted)):
        raise errors.BadRequest()
    return b", ".join(protocol for protocol in wanted if protocol.lower() != b"h2c")
