"""Where bodies end: every rule, at every byte boundary."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autostart_proxy import errors
from autostart_proxy.wire.chunks import LAST_CHUNK, Chunked
from autostart_proxy.wire.framing import (
    Body,
    Counted,
    Framer,
    UntilClose,
    frame_response,
    request_body,
)
from tests.wire.bodies import chunk_lists, cuts, encode, fed, split
from tests.wire.heads import read, request, response


def test_a_counted_body_ends_after_its_length() -> None:
    body = Counted(5)
    assert not body.done
    assert fed(body, b"he", b"llo, next") == b"hello"
    assert (body.done, body.surplus, body.size) == (True, b", next", 5)
    assert Counted(0).done
    assert "0 of 5" in repr(body)
    assert not body.behind


def test_a_body_until_close_never_ends_by_itself() -> None:
    body = UntilClose(encode=False)
    assert fed(body, b"a", b"", b"bc") == b"abc"
    assert (body.done, body.size) == (False, 3)
    assert "3 bytes" in repr(body)


def test_a_body_until_close_can_be_given_in_chunks() -> None:
    body = UntilClose(encode=True)
    assert fed(body, b"a", b"", b"bc") == b"1\r\na\r\n2\r\nbc\r\n"
    decoder = Chunked(errors.BadRequest, decode=True)
    assert fed(decoder, b"1\r\na\r\n2\r\nbc\r\n" + LAST_CHUNK) == b"abc"
    assert decoder.done


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
        framed = frame_response(head, to_head, http10, keep_alive)
        body = framed.body and framed.body()
        assert (body if kind is None else type(body)) is kind
        assert framed.keep_alive is (kept and keep_alive)
        framing = lines if keep_alive else lines.removesuffix(KEEP).removesuffix(CLOSE) + CLOSE
        assert framed.lines == b"HTTP/1.1 %d x\r\n" % status + framing


def test_what_was_decided_of_a_response_holds_for_the_same_head_and_the_same_question() -> None:
    framer, one, two = Framer(), response(LENGTH[:-2]), response(CHUNKS[:-2])
    asked = {"to_head": False, "http10": False, "keep_alive": True}
    first = framer.frame(one, **asked)
    assert framer.frame(one, **asked) is first
    assert framer.frame(two, **asked).lines == frame_response(two, *asked.values()).lines
    for name in asked:
        other = {**asked, name: not asked[name]}
        assert framer.frame(one, **other).lines == frame_response(one, *other.values()).lines
    assert first.body is not None and first.body() is not first.body()


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
    framed = frame_response(head, False, http10, keep_alive)
    body, kept = framed.body and framed.body(), framed.keep_alive

    written = framed.head(b"id")
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
