"""What both directions share: framing, persistence, trailers, fields by name."""

from __future__ import annotations

import pytest

from autostart_proxy.wire.grammar import clean_trailers, find_field
from tests.wire.heads import read, request, response


@pytest.mark.parametrize(
    ("line", "minor", "keep_alive"),
    [
        (b"X: 1", b"1", True),
        (b"Connection: close", b"1", False),
        (b"Connection: Keep-Alive", b"0", True),
        (b"X: 1", b"0", False),
        (b"Connection: keep-alive\r\nConnection: CLOSE", b"1", False),
        (b"Connection: keep-alive, close", b"0", False),
    ],
)
def test_keep_alive_follows_version_and_connection(
    line: bytes, minor: bytes, keep_alive: bool
) -> None:
    assert read(request(line, first=b"GET / HTTP/1." + minor)).fields.keep_alive is keep_alive
    assert response(line, first=b"HTTP/1.%b 200 OK" % minor).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("lines", "length", "chunked"),
    [
        ((), None, False),
        ((b"Content-Length: 12",), 12, False),
        ((b"content-length:\t0 ",), 0, False),
        ((b"Transfer-Encoding: Chunked",), None, True),
    ],
)
def test_framing_is_read_the_same_in_both_directions(
    lines: tuple[bytes, ...], length: int | None, chunked: bool
) -> None:
    asked, answered = read(request(*lines)), response(*lines)
    assert (asked.fields.content_length, asked.fields.chunked) == (length, chunked)
    assert (answered.content_length, answered.chunked) == (length, chunked)
    assert asked.fields.has_body is (chunked or bool(length))
    assert (b"Transfer-Encoding: chunked" in asked.upstream_head(b"")) is chunked


def test_trailers_are_checked_and_cleaned() -> None:
    assert clean_trailers(b"") == b""
    forbidden = b"TE: x\r\nX-Autostart: starting\r\nx_request_id: 1\r\n"
    assert clean_trailers(b"A: 1\r\n" + forbidden + b"B:\r\n") == b"A: 1\r\nB:\r\n"
    assert clean_trailers(b"A 1\r\n") is None


def test_a_field_is_found_by_name_in_any_case() -> None:
    head = b"GET / HTTP/1.1\r\nX-Accept: no\r\naCCept:  yes \r\n\r\n"
    assert find_field(head, b"accept") == b"yes"
    assert find_field(head, b"host") == b""
