"""What is silence in a recording, and what only a wrong time stamp."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_service.media.timeline import TOLERANCE_SECONDS, UNCOVERED_SECONDS, Timeline

FRAME = 0.02
STAMPS = st.lists(st.none() | st.floats(-1e6, 1e6), max_size=20)


def silences(timeline: Timeline, *stamps: float | None) -> list[Any]:
    return [pytest.approx(timeline.silence_before(stamp, FRAME)) for stamp in stamps]


def test_a_late_start_and_a_hole_are_silence() -> None:
    timeline = Timeline(1.5, 20.0, 0.0)
    assert silences(timeline, 4.5, 4.52, 6.54, None, 6.58) == [3.0, 0.0, 2.0, 0.0, 0.0]


def test_stamps_that_are_only_rounded_are_none() -> None:
    timeline = Timeline(0.0, 20.0, 0.0)
    assert silences(timeline, 0.09, 0.0, 0.1, 0.15, 0.0) == [0.0] * 5


def test_many_small_holes_come_to_one() -> None:
    timeline = Timeline(0.0, 20.0, 0.0)
    assert silences(timeline, *(number * 0.05 for number in range(5))) == [0, 0, 0, 0, 0.12]


def test_stamps_that_go_back_start_a_new_count() -> None:
    timeline = Timeline(0.0, 20.0, 0.0)
    assert silences(timeline, 0.0, -8.0, -7.98, -6.96) == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("length", "covered", "hole"),
    [
        (5000.0, 5000.0, 3600.0),
        (5000.0, 0.0, 0.0),
        (10.0, 5000.0, 0.0),
        (None, 0.0, 0.0),
    ],
    ids=["something plays", "nothing plays", "beyond the end", "nothing is declared"],
)
def test_hours_of_silence_are_believed_only_where_something_plays(
    length: float | None, covered: float, hole: float
) -> None:
    assert silences(Timeline(0.0, length, covered), 3600.0, 3600.0 + FRAME) == [hole, 0.0]


def test_holes_may_not_come_to_hours_either() -> None:
    timeline = Timeline(0.0, None, 0.0)
    found = [timeline.silence_before(100.0 * number, FRAME) for number in range(100)]
    assert 500 < sum(found) <= UNCOVERED_SECONDS


@given(STAMPS, st.none() | st.floats(0, 1e5), st.floats(-10, 1e5))
def test_silence_is_never_negative_and_never_endless(
    stamps: list[float | None], length: float | None, covered: float
) -> None:
    timeline = Timeline(0.0, length, covered)
    found = [timeline.silence_before(stamp, FRAME) for stamp in stamps]
    assert all(hole == 0 or hole > TOLERANCE_SECONDS for hole in found)
    assert sum(found) <= max(UNCOVERED_SECONDS, covered)
    if length is not None:
        assert sum(found) <= length + TOLERANCE_SECONDS
