"""Heads for the tests of both directions."""

from __future__ import annotations

from autostart_proxy.wire.requests import Request, RequestReader
from autostart_proxy.wire.responses import Response, ResponseReader


def read(head: bytes, *, peer: bytes = b"192.0.2.1", trusted: bool = False) -> Request:
    return whole(RequestReader(peer=peer, trusted=trusted), head)


def whole(reader: RequestReader, head: bytes) -> Request:
    """Read a head that is complete, with other bytes before and behind it."""
    for before, behind in ((b"", b""), (b"", b"GET /next HTTP/1.1\r\n\r\n"), (b"\r\nx", b"y")):
        found = reader.read(before + head + behind, len(before))
        assert found is not None
        request, end = found
        assert end == len(before + head)
    return request


def request(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"a.example") -> bytes:
    return b"\r\n".join([first, b"Host: " + host, *lines]) + b"\r\n\r\n"


def response(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> Response:
    head = b"\r\n".join([first, *lines]) + b"\r\n\r\n"
    found = ResponseReader().read(b"before" + head + b"behind", 6)
    assert found is not None
    assert found[1] == 6 + len(head)
    return found[0]
