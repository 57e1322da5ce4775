"""The last lines of what a program writes, whatever it writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autostart_proxy.backends.tail import (
    KEPT_CHARACTERS,
    KEPT_LINES,
    LONGEST_LINE_BYTES,
    Tail,
    last_lines,
)


def test_lines_come_whole_however_they_are_cut() -> None:
    tail = Tail()
    assert tail.feed(b"on") == []
    assert list(tail.lines) == ["on"]
    assert tail.feed(b"e\r\n\n  two") == ["one"]
    assert tail.feed(b"\n") == ["  two"]
    assert list(tail.lines) == ["one", "  two"]


def test_only_the_last_lines_are_kept_and_each_only_so_far() -> None:
    tail = Tail()
    tail.feed(b"".join(b"%d\n" % number for number in range(100)))
    assert tail.lines == tuple(str(number) for number in range(100 - KEPT_LINES, 100))
    [line] = tail.feed(b"x" * (2 * LONGEST_LINE_BYTES) + b"\n")
    assert len(line) == LONGEST_LINE_BYTES
    assert tail.lines[-1] == "x" * KEPT_CHARACTERS


def test_what_a_terminal_would_obey_is_replaced() -> None:
    assert last_lines([b"\x1b[31mred\xff\tend\n"]) == ("\ufffd[31mred\ufffd\tend",)


@given(st.lists(st.binary(max_size=200)))
def test_nothing_a_program_writes_takes_more_than_its_bounds(pieces: list[bytes]) -> None:
    tail = Tail()
    for piece in pieces:
        tail.feed(piece)
    assert len(tail.lines) <= KEPT_LINES
    assert all(len(line) <= KEPT_CHARACTERS for line in tail.lines)
    assert all(each.isprintable() or each == "\t" for line in tail.lines for each in line)
