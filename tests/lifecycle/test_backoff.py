"""How long trouble keeps a service from being started again."""

from __future__ import annotations

from autostart_proxy import errors
from autostart_proxy.lifecycle.backoff import TROUBLES_PER_WINDOW, WINDOW_SECONDS, Backoff

TROUBLE = errors.StartFailed()


def after(*times: float) -> Backoff:
    backoff = Backoff()
    for at in times:
        backoff.note(TROUBLE, at)
    return backoff


def test_nothing_stands_against_a_start_without_trouble_nor_after_one() -> None:
    assert after().due_at < 0
    assert (after(10.0).due_at, after(10.0).reason) == (10.0, TROUBLE)


def test_each_further_trouble_doubles_the_wait() -> None:
    assert [after(*range(n)).due_at - (n - 1) for n in (2, 3, 4)] == [2.0, 4.0, 8.0]


def test_a_full_window_waits_for_its_oldest_to_leave_it() -> None:
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(times) == TROUBLES_PER_WINDOW
    assert after(*times).due_at == WINDOW_SECONDS
    assert after(*times, 60.0).due_at == 1.0 + WINDOW_SECONDS


def test_old_trouble_is_forgotten() -> None:
    assert after(0.0, 1.0, 2.0, 100.0).due_at == 100.0


def test_whoever_knows_better_ends_the_wait() -> None:
    backoff = after(*range(5))
    backoff.forget()
    assert backoff.due_at < 0 and backoff.reason is None
    backoff.note(TROUBLE, 7.0)
    assert backoff.due_at == 7.0
