"""Response heads: every rule of what is taken and written."""

from __future__ import annotations

import pytest

from autostart_proxy import errors
from autostart_proxy.wire.responses import ResponseReader
from tests.wire.heads import response


def test_the_same_answer_head_is_read_once() -> None:
    reader = ResponseReader()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    one, two = reader.read(head), reader.read(head + b"x")
    assert one is not None and two is not None and one[0] is two[0]
    other = reader.read(head.replace(b"1\r\n\r", b"2\r\n\r"))
    assert other is not None and other[0].content_length == 2


def test_an_unfinished_answer_head_is_refused_as_soon_as_it_is_hopeless() -> None:
    reader = ResponseReader()
    assert reader.read(b"HTT") is None
    assert reader.read(b"HTTP/1.1 200 OK\r\n") is None
    for hopeless in (b"HTTQ", b"HTTP/2", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000):
        with pytest.raises(errors.BadUpstream):
            reader.read(hopeless)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 1", b"Content-Length: 1"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip",),
        (b"Content-Length: +1",),
        (b"X: a\0",),
        (b"X: " + b"y" * 70_000,),
    ],
)
def test_an_answer_in_doubt_is_a_bad_upstream(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(errors.BadUpstream):
        response(*lines)


def test_an_answer_is_written_anew() -> None:
    got = response(
        b"Server: x", b"Connection: Upgrade", b"Upgrade: ws", b"X-Request-ID: theirs",
        b"Keep-Alive: 5", b"Content-Length: 4", b"Set-Cookie: a", b"Set-Cookie: b",
        first=b"HTTP/1.1 200",
    )  # fmt: skip
    assert got.upgrade == b"ws"
    assert got.downstream_head(b"ours", b"Content-Length: 4\r\n") == (
        b"HTTP/1.1 200 \r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Content-Length: 4\r\nX-Request-ID: ours\r\n\r\n"
    )
    early = response(b"Link: x", first=b"HTTP/1.1 103 Early Hints").interim_head()
    assert early == b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
