"""Chunked bodies: every rule, at every byte boundary."""

from __future__ import annotations

from collections.abc import Iterator

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autostart_proxy import errors
from autostart_proxy.wire.chunks import CHUNKS_AT_A_TIME, LAST_CHUNK, Chunked
from tests.wire.bodies import chunk_lists, cuts, encode, fed, split


def chunked(*, decode: bool = False) -> Chunked:
    return Chunked(errors.BadRequest, decode=decode)


class Payload:
    """What llhttp makes of chunks."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.sizes = 0
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_chunk_header(self) -> None:
        self.sizes += 1

    def on_message_complete(self) -> None:
        self.complete = True


def heard(chunks: bytes) -> Payload:
    """What another parser reads in the chunks that are passed on."""
    payload = Payload()
    parser = httptools.HttpRequestParser(payload)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    return payload


def size_lines(chunks: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(chunks):
        line = chunks[at:].partition(b"\r\n")[0]
        yield line
        size = int(line, 16)
        if size == 0:
            return
        at += len(line) + 2 + size + 2


EXTENSIONS = st.sampled_from([b"", b";a=b", b' ; x="y z"', b";", b'\t;a="b', b";\xff"])


@settings(deadline=None)
@given(chunk_lists, cuts, st.binary(max_size=20), EXTENSIONS)
def test_the_payload_passes_and_the_extensions_do_not_however_chunks_arrive(
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
    assert passed.endswith(b"0\r\nX-Sum: 1\r\n\r\n")
    got = heard(passed)
    assert got.complete and b"".join(got.parts) == b"".join(chunks)
    assert all(line.isalnum() for line in size_lines(passed))


@settings(deadline=None)
@given(chunk_lists, cuts)
def test_decoded_chunks_are_the_payload(chunks: list[bytes], at: list[int]) -> None:
    body = chunked(decode=True)
    assert fed(body, *split(encode(chunks), at)) == b"".join(chunks)
    assert body.done
    assert body.surplus == b""


@settings(deadline=None)
@given(chunk_lists, st.integers(0, 10_000))
def test_an_unfinished_body_is_not_done_and_keeps_no_payload_back(
    chunks: list[bytes], cut: int
) -> None:
    message = encode(chunks)
    part = message[: cut % len(message)]
    body, decoder = chunked(), chunked(decode=True)
    passed, payload = body.feed(part), decoder.feed(part)
    assert not body.done
    assert b"".join(heard(passed).parts) == payload
    assert b"".join(chunks).startswith(payload)
    assert len(part) - len(payload) <= 6 * len(chunks) + 6


def test_small_chunks_that_arrive_together_go_on_as_one() -> None:
    small, large = b"1\r\na\r\n" * 20, b"400\r\n" + b"x" * 1024 + b"\r\n"
    body = chunked()
    assert body.feed(small) == b"14\r\n" + b"a" * 20 + b"\r\n"
    assert body.feed(large + large) == large + large
    assert body.feed(small + large + small + b"2\r\nb") == (
        b"14\r\n" + b"a" * 20 + b"\r\n" + large + b"14\r\n" + b"a" * 20 + b"\r\n" + b"2\r\nb"
    )
    assert body.size == 3 * 20 + 3 * 1024 + 2


def test_a_large_chunk_goes_on_without_being_copied() -> None:
    body = chunked()
    first, more = b"fffff\r\n" + b"x" * 1000, b"x" * 5000
    assert body.feed(first) is first
    assert body.feed(more) is more


def test_an_extension_goes_no_further_wherever_its_chunk_is_cut() -> None:
    body = chunked()
    assert body.feed(b"3;secret\r\na") == b"3\r\na"
    assert body.feed(b"bc\r\n200 ;secret\r\n") == b"bc\r\n200\r\n"
    assert body.feed(b"x" * 512) == b"x" * 512
    assert body.feed(b"\r\n100;secret\r\n" + b"y" * 256 + b"\r\n") == (
        b"\r\n100\r\n" + b"y" * 256 + b"\r\n"
    )


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"10\r\n0123456789abcdef\r\n", b"1;e\r\na\r\n"])
def test_at_most_so_many_chunks_are_read_at_a_time(chunk: bytes, decode: bool) -> None:
    body = chunked(decode=decode)
    payload = chunk.split(b"\r\n")[1]
    piece = chunk * 2 * CHUNKS_AT_A_TIME + LAST_CHUNK + b"next"
    seen = []
    for data in (piece, b"", b""):
        body.feed(data)
        seen.append((body.size, body.behind, body.done))
    size = CHUNKS_AT_A_TIME * len(payload)
    assert seen == [(size, True, False), (2 * size, True, False), (2 * size, False, True)]
    assert body.surplus == b"next"


def test_what_arrives_while_a_body_is_behind_comes_after() -> None:
    body, count = chunked(decode=True), CHUNKS_AT_A_TIME
    passed = body.feed(b"1\r\na\r\n" * (count + 1))
    passed += body.feed(b"1\r\nb\r\n" + LAST_CHUNK)
    assert passed == b"a" * (count + 1) + b"b" and body.done
    exactly = chunked()
    exactly.feed(b"1\r\na\r\n" * count)
    assert not exactly.behind


@pytest.mark.parametrize(
    "broken",
    [
        b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b" 1\r\n", b"0x1\r\n", b"1_0\r\n", b"1 \r\n",
        b"1\n", b"1\r1", b"g", b"1g", b"1 x", b"1;\x00\r\n", b"1;a\rb", b"1;a\nb", b"1 \r",
        b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\rb", b"1\r\nax", b"0000000000000001\r\n",
        b"ffffffffffffffff\r\n", b"f" * 16, b"1;" + b"a" * 300, b"1;" + b"a" * 300 + b"\r\n",
        b"0;" + b"a" * 300 + b"\r\n\r\n", b"0\r\nbad\r\n\r\n", b"0\r\nX : y\r\n\r\n",
        b"0\r\n X: y\r\n\r\n", b"0\r\nX: y\nZ: 1", b"0\r\nX: \x00", b"0\r\n\n",
        b"0\r\nX: 1\r\n folded\r\n\r\n", b"0\r\nX: 1\r\n folded", b"0\r\nX ", b"5\r\nhellox",
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
    assert body.feed(b"x" * 10) == b"x" * 10
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
@pytest.mark.parametrize(
    "lines",
    [b"X: %b\r\n" % (b"y" * 40_000), b"X: y\r\n" * 201, (b"X: %b\r\n" % (b"y" * 9000)) * 8],
    ids=["line", "fields", "in all"],
)
def test_trailers_beyond_the_limits_of_a_head_are_refused_as_their_side_demands(
    lines: bytes, end: bytes
) -> None:
    section = b"0\r\n" + lines + end
    with pytest.raises(errors.HeadersTooLarge, match="trailers"):
        chunked().feed(section)
    with pytest.raises(errors.BadUpstream):
        Chunked(errors.BadUpstream).feed(section)


def test_trailers_within_the_limits_of_a_head_pass() -> None:
    lines = b"X: y\r\n" * 199 + b"X: %b\r\n" % (b"y" * 30_000)
    assert chunked().feed(b"0\r\n" + lines + b"\r\n") == b"0\r\n" + lines + b"\r\n"


def test_trailers_are_kept_until_they_are_complete() -> None:
    body = chunked()
    assert fed(body, b"0\r\n", b"X: ", b"y\r", b"\n\r") == b""
    assert "trailers" in repr(body)
    assert body.feed(b"\n") == b"0\r\nX: y\r\n\r\n"
