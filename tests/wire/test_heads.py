"""Where a head ends, and when it can no longer become one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autostart_proxy.errors import BadRequest
from autostart_proxy.wire.heads import (
    FIELD_LIMIT,
    FIELD_LINE_LIMIT_BYTES,
    FIRST_LINE_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    Fault,
    GrowingHead,
    beginnings,
)

LINE = b"a b\r\n"


def growing() -> GrowingHead:
    return GrowingHead(
        re.compile(rb"[ax]+ b\r\n"),
        beginnings(rb"[ax]+", rb" ", rb"b", rb"\r"),
        lambda fault: BadRequest(fault.value),
    )


def fault_of(data: bytes, *, at: int = 0) -> Fault | None:
    """What is wrong with a head that is not complete yet."""
    try:
        assert growing().end(data, at) == 0
    except BadRequest as error:
        return Fault(error.public)
    return None


@pytest.mark.parametrize("head", [LINE + b"\r\n", LINE + b"X: y\r\nZ:\r\n\r\n"])
def test_a_head_may_arrive_in_any_pieces_and_ends_with_its_empty_line(head: bytes) -> None:
    for step in range(1, len(head) + 1):
        reader = growing()
        for _ in range(2):  # the next head behind it is another
            for end in range(0, len(head), step):
                assert reader.end(b"before" + head[:end], 6) == 0
            assert reader.end(b"before" + head + b"behind", 6) == 6 + len(head)
    assert "0 bytes checked" in repr(reader)


@pytest.mark.parametrize(
    "hopeless",
    [b"b", b" ", b"a  ", b"a bc", b"a b\n", b"a b\rx", b"a b\r\n\n", b"a b\r\n\rx", b"a b\r\n X",
     b"a b\r\nX ", b"a b\r\nX : y", b"a b\r\n: y", b"a b\r\nX\r", b"a b\r\nX: y\n", b"a b\r\nX: \0",
     b"a b\r\nX: y\r\r", b"a b\r\nX: y\r\nZ\x80", b"a b\r\nX: y\r\nno colon\r\nZ: "],
)  # fmt: skip
def test_what_no_further_byte_can_make_right_is_refused_at_once(hopeless: bytes) -> None:
    assert fault_of(hopeless) is Fault.BROKEN
    reader = growing()
    with pytest.raises(BadRequest):
        for end in range(len(hopeless) + 1):
            reader.end(hopeless[:end])


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_what_is_hopeless_stays_hopeless(begun: bytes, more: bytes) -> None:
    for start in (b"", b"a ", LINE, LINE + b"X: y\r\n"):
        data = start + begun
        if b"\r\n\r\n" not in data + more and fault_of(data) is Fault.BROKEN:
            assert fault_of(data + more) is Fault.BROKEN


def test_each_line_is_looked_at_once() -> None:
    reader, data = growing(), LINE
    for number in range(100):
        data += b"X%d: y\r\n" % number
        assert reader.end(data + b"Z") == 0
        assert reader.checked == len(data)


X = b"x"
FIVE_LINES = LINE + (b"X: %b\r\n" % (X * 12_000)) * 5


@pytest.mark.parametrize(
    ("within", "one_more", "fault"),
    [
        (X * (FIRST_LINE_LIMIT_BYTES - 2), b" b\r\n", Fault.FIRST_LINE_TOO_LONG),
        (LINE + b"X:" + X * (FIELD_LINE_LIMIT_BYTES - 2), b"\r\n", Fault.TOO_LARGE),
        (LINE + b"X:\r\n" * FIELD_LIMIT, b"", Fault.TOO_LARGE),
        (
            FIVE_LINES + b"X:" + X * (HEAD_LIMIT_BYTES - len(FIVE_LINES) - 6),
            b"\r\n",
            Fault.TOO_LARGE,
        ),
    ],
    ids=["first line", "line", "fields", "in all"],
)
def test_the_limits_hold_for_whole_heads_and_for_what_there_is_of_one(
    within: bytes, one_more: bytes, fault: Fault
) -> None:
    beyond = within + (b"X:\r\n" if not one_more else b"x")
    whole = within + one_more + b"\r\n"
    assert growing().end(whole) == len(whole)
    assert growing().end(b"before" + whole, 6) == len(whole) + 6
    assert fault_of(within) is None
    with pytest.raises(BadRequest, match=re.escape(fault.value)):
        growing().end(beyond + one_more + b"\r\n")
    assert fault_of(beyond + b"xxxx") is fault


def test_a_head_is_never_larger_than_its_limit() -> None:
    lines = LINE + (b"X: %b\r\n" % (X * 9000)) * 10
    assert len(lines) > HEAD_LIMIT_BYTES
    reader = growing()
    with pytest.raises(BadRequest):
        for end in range(0, len(lines), 100):
            reader.end(lines[:end])
    assert end <= HEAD_LIMIT_BYTES + 100


def test_beginnings_are_those_of_the_whole_and_nothing_else() -> None:
    pattern = beginnings(rb"a+", rb"-", rb"[01]")
    assert all(pattern.fullmatch(each) for each in (b"", b"a", b"aa", b"aa-", b"a-1"))
    assert not any(pattern.fullmatch(each) for each in (b"-", b"a1", b"a-2", b"a-11"))
