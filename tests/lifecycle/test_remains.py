"""How long parts of a service may run on without the rest."""

from __future__ import annotations

import pytest

from autostart_proxy.lifecycle.remains import LONGEST_SECONDS, Remains


def left(*times: float) -> Remains:
    remains = Remains()
    for at in times:
        remains.see(True, at)
    return remains


@pytest.mark.parametrize(
    ("idle_timeout", "failed", "seconds"),
    [
        (5.0, True, 5.0),
        (3600.0, True, LONGEST_SECONDS),
        (None, True, LONGEST_SECONDS),
        (5.0, False, 5.0),
        (3600.0, False, 3600.0),
        (None, False, None),
    ],
)
def test_what_is_left_is_stopped_with_the_idle_time_at_the_latest(
    idle_timeout: float | None, failed: bool, seconds: float | None
) -> None:
    deadline = left(10.0).deadline(idle_timeout, failed=failed)
    assert deadline == (None if seconds is None else 10.0 + seconds)


def test_it_counts_from_when_it_was_first_seen() -> None:
    assert left(10.0, 12.0).deadline(5.0, failed=False) == 15.0


@pytest.mark.parametrize("again", [False, True])
def test_where_nothing_is_left_nothing_is_stopped(again: bool) -> None:
    remains = left(10.0)
    if again:
        remains.forget()
    else:
        remains.see(False, 11.0)
    assert not remains
    assert remains.deadline(5.0, failed=True) is None
    remains.see(True, 20.0)
    assert remains and remains.deadline(5.0, failed=True) == 25.0
