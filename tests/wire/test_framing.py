"""Where bodies end: every rule, at every byte boundary."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autostart_proxy import errors
from autostart_proxy.wire.framing import (
    LAST_CHUNK,
    Body,
    Chunked,
    Counted,
    UntilClose,
    frame_response,
    request_body,
)
from tests.wire.heads import read, request, response


def chunked(*, decode: bool = False) -> Chunked:
    return Chunked(errors.BadRequest, decode=decode)


def fed(body: Body, *pieces: bytes) -> bytes:
    """All that is passed on; the surplus of the last piece stays in the body."""
    return b"".join(body.feed(piece) for piece in pieces)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


chunk_lists = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


def encode(chunks: list[bytes], trailers: bytes = b"", extension: bytes = b"") -> bytes:
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join(parts) + b"0%b\r\n" % extension + trailers + b"\r\n"


def test_a_counted_body_ends_after_its_length() -> None:
    body = Counted(5)
    assert not body.done
    assert fed(body, b"he", b"llo, next") == b"hello"
    assert (body.done, body.surplus, body.size) == (True, b", next", 5)
    assert Counted(0).done
    assert "0 of 5" in repr(body)


def test_a_body_until_close_never_ends_by_itself() -> None:
    body = UntilClose(encode=False)
    assert fed(body, b"a", b"", b"bc") == b"abc"
    assert (body.done, body.size) == (False, 3)
    assert "3 bytes" in repr(body)


def test_a_body_until_close_can_be_given_in_chunks() -> None:
    body = UntilClose(encode=True)
    assert fed(body, b"a", b"", b"bc") == b"1\r\na\r\n2\r\nbc\r\n"
    decoder = chunked(decode=True)
    assert fed(decoder, b"1\r\na\r\n2\r\nbc\r\n" + LAST_CHUNK) == b"abc"
    assert decoder.done


@settings(deadline=None)
@given(chunk_lists, cuts, st.binary(max_size=20), st.sampled_from([b"", b";a=b", b' ; x="y z"']))
def test_chunks_pass_unchanged_however_they_arrive(
    chunks: list[bytes], at: list[int], behind: bytes, extension: bytes
) -> None:
    message = encode(chunks, b"X-Sum: 1\r\n", extension)
    body, passed = chunked(), b""
    rest = b""
    for piece in split(message + behind, at):
        if body.done:
            rest += piece
        else:
            passed += body.feed(piece)
    assert body.done
    assert body.surplus + rest == behind
    assert body.size == sum(map(len, chunks))
    last = b"0%b\r\n" % extension
    assert passed == message.replace(last + b"X-Sum", b"0\r\nX-Sum")


@settings(deadline=None)
@given(chunk_lists, cuts)
def test_decoded_chunks_are_the_payload(chunks: list[bytes], at: list[int]) -> None:
    body = chunked(decode=True)
    assert fed(body, *split(encode(chunks), at)) == b"".join(chunks)
    assert body.done
    assert body.surplus == b""


@settings(deadline=None)
@given(chunk_lists, st.integers(0, 10_000))
def test_an_unfinished_body_is_not_done_and_keeps_nothing_valid_back(
    chunks: list[bytes], cut: int
) -> None:
    message = encode(chunks)
    part = message[: cut % len(message)]
    body = chunked()
    passed = body.feed(part)
    assert not body.done
    assert part.startswith(passed)
    assert len(part) - len(passed) < 6  # at most a size line and a line break


@pytest.mark.parametrize(
    "broken",
    [
        b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b" 1\r\n", b"0x1\r\n", b"1_0\r\n", b"1 \r\n",
        b"1\n", b"1\r1", b"g", b"1g", b"1 x", b"1;\x00\r\n", b"1;a\rb", b"1;a\nb", b"1 \r",
        b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\rb", b"1\r\nax", b"0000000000000001\r\n",
        b"ffffffffffffffff\r\n", b"f" * 16, b"1;" + b"a" * 300, b"1;" + b"a" * 300 + b"\r\n",
        b"0;" + b"a" * 300 + b"\r\n\r\n", b"0\r\nbad\r\n\r\n", b"0\r\nX : y\r\n\r\n",
        b"0\r\n X: y\r\n\r\n", b"0\r\nX: y\nZ: 1", b"0\r\nX: \x00", b"0\r\n\n",
        b"0\r\nX: 1\r\n folded\r\n\r\n",
    ],
)  # fmt: skip
def test_broken_chunks_are_refused_at_every_split(broken: bytes) -> None:
    for cut in range(len(broken) + 1):
        with pytest.raises(errors.BadRequest):
            fed(chunked(), broken[:cut], broken[cut:])


def test_nothing_beyond_the_valid_prefix_is_passed_on() -> None:
    body = chunked()
    assert body.feed(b"3\r\nabc\r\n5") == b"3\r\nabc\r\n"
    assert "1 kept back" in repr(body)
    with pytest.raises(errors.BadRequest):
        body.feed(b"g")


def test_the_largest_size_is_taken_and_announced() -> None:
    body = chunked()
    line = b"f" * 15 + b"\r\n"
    assert body.feed(line) == line
    assert body.size == 16**15 - 1
    assert "chunks" in repr(body)


def test_trailers_that_only_a_header_may_say_are_left_out() -> None:
    body = chunked()
    forbidden = (
        b"Content-Length: 1\r\nHost: x\r\nx-forwarded-for: 1\r\nTransfer_Encoding: x\r\n"
        b"Authorization: y\r\nCookie: z\r\nContent-Type: a\r\nConnection: close\r\n"
    )
    assert body.feed(b"0\r\n" + forbidden + b"Server-Timing: db\r\nX-Sum: 1\r\n\r\nnext") == (
        b"0\r\nServer-Timing: db\r\nX-Sum: 1\r\n\r\n"
    )
    assert (body.done, body.surplus) == (True, b"next")
    assert "done" in repr(body)


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_trailers_beyond_the_limit_are_refused_as_their_side_demands(end: bytes) -> None:
    section = b"0\r\n" + b"X: yyyy\r\n" * 5000 + end
    with pytest.raises(errors.HeadersTooLarge):
        chunked().feed(section)
    with pytest.raises(errors.BadUpstream):
        Chunked(errors.BadUpstream).feed(section)


def test_trailers_are_kept_until_they_are_complete() -> None:
    body = chunked()
    assert fed(body, b"0\r\n", b"X: ", b"y\r", b"\n\r") == b""
    assert "trailers" in repr(body)
    assert body.feed(b"\n") == b"0\r\nX: y\r\n\r\n"


# Which framing a message has.

CLOSE, KEEP = b"Connection: close\r\n", b"Connection: keep-alive\r\n"
LENGTH, CHUNKS = b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ((), None),
        ((b"Content-Length: 0",), None),
        ((b"Content-Length: 3",), Counted),
        ((b"Transfer-Encoding: chunked",), Chunked),
    ],
)
def test_a_request_has_the_body_that_its_head_announces(
    lines: tuple[bytes, ...], kind: type[Body] | None
) -> None:
    body = request_body(read(request(*lines)).fields)
    assert (body if kind is None else type(body)) is kind


@pytest.mark.parametrize(
    ("status", "announced", "to_head", "http10", "kind", "lines", "kept"),
    [
        (200, LENGTH, False, False, Counted, LENGTH, True),
        (200, LENGTH, False, True, Counted, LENGTH + KEEP, True),
        (200, CHUNKS, False, False, Chunked, CHUNKS, True),
        (200, CHUNKS, False, True, Chunked, CLOSE, False),
        (200, b"", False, False, UntilClose, CHUNKS, True),
        (200, b"", False, True, UntilClose, CLOSE, False),
        (200, LENGTH, True, False, None, LENGTH, True),
        (200, CHUNKS, True, False, None, CHUNKS, True),
        (200, CHUNKS, True, True, None, CLOSE, False),
        (200, b"", True, False, None, b"", True),
        (200, b"", True, True, None, KEEP, True),
        (204, b"", False, False, None, b"", True),
        (204, LENGTH, False, False, None, b"", True),
        (204, CHUNKS, False, False, None, b"", True),
        (204, CHUNKS, False, True, None, KEEP, True),
        (304, LENGTH, False, False, None, LENGTH, True),
        (304, CHUNKS, False, False, None, CHUNKS, True),
        (304, b"", False, False, None, b"", True),
    ],
)
def test_each_kind_of_response_goes_on_in_one_way(
    status: int, announced: bytes, to_head: bool, http10: bool,
    kind: type[Body] | None, lines: bytes, kept: bool,
) -> None:  # fmt: skip
    head = response(*announced.splitlines(), first=b"HTTP/1.1 %d x" % status)
    for keep_alive in (True, False):
        body, framing, still = frame_response(
            head, to_head=to_head, http10=http10, keep_alive=keep_alive
        )
        assert (body if kind is None else type(body)) is kind
        assert still is (kept and keep_alive)
        assert framing == (
            lines if keep_alive else lines.removesuffix(KEEP).removesuffix(CLOSE) + CLOSE
        )


class Heard:
    """What llhttp makes of a response."""

    def __init__(self) -> None:
        self.body = b""
        self.keep_alive = self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@settings(deadline=None, max_examples=300)
@given(
    status=st.sampled_from([200, 201, 204, 206, 301, 304, 404, 500, 503]),
    framing=st.sampled_from(["length", "chunked", "close"]),
    http10=st.booleans(),
    keep_alive=st.booleans(),
    chunks=chunk_lists,
    at=cuts,
)
def test_what_goes_downstream_is_for_llhttp_the_same_message(
    status: int, framing: str, http10: bool, keep_alive: bool, chunks: list[bytes], at: list[int]
) -> None:
    payload = b"".join(chunks)
    announced = {
        "length": (b"Content-Length: %d" % len(payload),),
        "chunked": (b"Transfer-Encoding: chunked",),
        "close": (),
    }[framing]
    head = response(*announced, first=b"HTTP/1.1 %d x" % status)
    bodiless = status in (204, 304)
    sent = b"" if bodiless else encode(chunks) if framing == "chunked" else payload
    body, lines, kept = frame_response(head, to_head=False, http10=http10, keep_alive=keep_alive)

    written = head.downstream_head(b"id", lines)
    if body is None:
        assert bodiless
    else:
        written += fed(body, b"", *split(sent, at))
        if isinstance(body, UntilClose):
            assert framing == "close" and not body.done
            written += b"" if http10 else LAST_CHUNK
        else:
            assert body.done and body.surplus == b""

    heard = Heard()
    heard.parser.feed_data(written)
    assert heard.body == (b"" if bodiless else payload)
    by_its_end = body is not None and not heard.complete
    assert by_its_end == (http10 and framing != "length" and not bodiless)
    assert kept <= keep_alive
    assert heard.keep_alive is kept
    assert heard.complete or not kept, "here only the end of the connection ends the message"
