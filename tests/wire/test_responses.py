"""Response heads: every rule of what is taken and written."""

from __future__ import annotations

import pytest

from autostart_proxy import errors
from autostart_proxy.wire.framing import frame_response
from autostart_proxy.wire.responses import ResponseReader
from tests.wire.heads import response


def test_the_same_answer_head_is_read_once() -> None:
    reader = ResponseReader()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    one, two = reader.read(head), reader.read(head + b"x")
    assert one is not None and two is not None and one[0] is two[0]
    other = reader.read(head.replace(b"1\r\n\r", b"2\r\n\r"))
    assert other is not None and other[0].content_length == 2


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTQ",
        b"HTTP/2",
        b"HTTP/1.2",
        b"HTTP/1.1  ",
        b"HTTP/1.1 2x",
        b"HTTP/1.1 099",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 200 OK\n",
        b"HTTP/1.1 200 OK\0",
        b"HTTP/1.1 200 OK\rx",
        b"HTTP/1.1\t",
        b"\0\1\2",
        b"\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        OK + b"\n",
        OK + b"\rx",
        OK + b"X: a\r\r\n",
        OK + b"X: a\0",
        OK + b" folded",
        OK + b"X : a",
        OK + b"X: a\n\r\nok",
        OK + b"no colon\r\n",
        OK + b"X: " + b"y" * 33_000,
        OK + b"X: y\r\n" * 201,
        OK + (b"X: %b\r\n" % (b"y" * 9000)) * 8,
        OK + b"Content-Length: x\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n",
        OK + b"Transfer-Encoding: gzip\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\nX",
    ],
    ids=lambda begun: str(begun[:60]),
)
def test_an_unfinished_head_is_refused_as_soon_as_no_byte_can_make_it_right(begun: bytes) -> None:
    with pytest.raises(errors.BadUpstream):
        ResponseReader().read(begun)
    reader = ResponseReader()
    with pytest.raises(errors.BadUpstream):
        for end in range(0, len(begun) + 1, 1 + len(begun) // 500):
            assert reader.read(b"x" + begun[:end], 1) is None
        reader.read(b"x" + begun, 1)


def test_a_head_may_arrive_in_any_pieces() -> None:
    head = b"HTTP/1.0 404\r\nX:\r\nContent-Length: 3\r\n\r\n"
    reader = ResponseReader()
    for _ in range(2):  # with nothing remembered, and with the same head remembered
        for end in range(len(head)):
            assert reader.read(head[:end]) is None
        found = reader.read(head + b"abc")
        assert found is not None and (found[0].status, found[1]) == (404, len(head))


def test_a_head_is_as_large_as_ordinary_web_applications_make_it() -> None:
    lines = [b"Set-Cookie: a%d=" % number + b"x" * 3900 for number in range(15)]
    assert len(response(*lines).lines) > 15 * 3900
    with pytest.raises(errors.BadUpstream, match="headers are too large"):
        response(*lines, *lines)


def test_what_only_the_proxy_says_is_not_taken_over() -> None:
    got = response(b"X-Autostart: starting", b"x-autostart: x", b"X-Request-ID: 1", b"X-Own: 1")
    assert got.lines == b"X-Own: 1\r\n"


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
    assert got.downstream_lines(b"Content-Length: 4\r\n") == (
        b"HTTP/1.1 200 \r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 4\r\n"
    )
    assert (
        frame_response(got, False, False, True)
        .head(b"ours")
        .endswith(b"\r\nX-Request-ID: ours\r\n\r\n")
    )
    early = response(b"Link: x", first=b"HTTP/1.1 103 Early Hints").interim_head()
    assert early == b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
