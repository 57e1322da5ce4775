"""Tables for people."""

from __future__ import annotations

from typing import Any

import pytest

from autostart_proxy.commands import tables


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.04, "0.0s"),
        (59.9, "59.9s"),
        (60, "1m0s"),
        (3599, "59m59s"),
        (3600, "1h0m"),
        (90000, "1d1h"),
    ],
)
def test_durations_are_told_in_two_units(seconds: float | None, words: str) -> None:
    assert tables.duration(seconds) == words


def status(**values: Any) -> dict[str, Any]:
    usual = {
        **{"host": "a.example", "name": "The A", "state": "ready", "why": "in use"},
        **{"since_seconds": 61.0, "leases": 2, "held": 0},
        **{"last_start_seconds": 1.24, "sleeps_in_seconds": None},
    }
    return usual | values


def test_a_status_is_a_line_for_each_service() -> None:
    assert tables.status_table([status(), status(host="b", held=12)]).splitlines() == [
        "HOST       NAME   STATE  SINCE  OPEN  HELD  LAST START  SLEEPS IN  WHY",
        "a.example  The A  ready  1m1s   2     0     1.2s        -          in use",
        "b          The A  ready  1m1s   2     12    1.2s        -          in use",
    ]


@pytest.mark.parametrize("width", [0, 40, 100, 120])
def test_a_long_reason_is_cut_to_one_line_of_the_terminal(width: int) -> None:
    _, line = tables.status_table([status(why="no\nroom " * 100)], width).splitlines()
    begin = line.index("no room")
    longest = max(width, begin + tables.LEAST_WIDTH)
    assert longest - len("room…") <= len(line) <= longest
    assert line.endswith("…")


def test_what_fits_is_not_cut() -> None:
    assert tables.shortened("a word", 6) == "a word"
    assert tables.shortened("a word", 5) == "a wo…"
    assert tables.shortened("a word " * 100, None) == " ".join(["a word"] * 100)


def test_a_terminal_is_shown_what_it_would_obey() -> None:
    obeyed = "\x1b]0;pwned\x07a\x9b2J\u202eb\rc"
    service = status(host=obeyed, name=obeyed, state=obeyed, why=obeyed)
    for line in tables.status_table([service], 500).splitlines():
        assert line.isprintable()


def test_lines_stay_lines() -> None:
    assert tables.printable("one\ntwo") == "one\ntwo"
    assert tables.printable("one\n\x1btwo") == "one\n\ufffdtwo"
