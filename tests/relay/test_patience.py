"""How long is waited for whom."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from autostart_proxy import errors
from autostart_proxy.relay.patience import LOWEST_BYTES_PER_SECOND, STALL_SECONDS, Due, Patience

LIMIT_SECONDS = 30.0


@dataclass(eq=False)
class Request:
    """Something that waits for what a test says."""

    what: Due
    limit_seconds: float | None = LIMIT_SECONDS
    bytes_in: int = 0
    bytes_out: int = 0
    interims: int = 0

    def due(self) -> tuple[Due, float | None]:
        return self.what, self.limit_seconds


def lost_after(request: Request, *, until: int = 1000) -> int | None:
    """After how many half seconds nobody waits any more."""
    patience = Patience()
    for sweep in range(until):
        if patience.is_lost(request, sweep / 2) is not None:
            return sweep
    return None


@pytest.mark.parametrize("what", [Due.BODY, Due.RESPONSE, Due.HEAD, Due.END])
def test_what_is_due_is_waited_for_until_its_limit_from_when_it_was_first_due(what: Due) -> None:
    assert lost_after(Request(what)) == 2 * LIMIT_SECONDS + 1
    assert lost_after(Request(what, None)) is None


def test_where_nothing_is_due_nobody_is_lost() -> None:
    assert lost_after(Request(Due.NOTHING, None)) is None


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (Due.BODY, errors.RequestTimeout),
        (Due.RESPONSE, errors.ResponseTimeout),
        (Due.HEAD, errors.ResponseTimeout),
        (Due.END, errors.RequestTimeout),
    ],
)
def test_who_was_late_decides_the_answer(what: Due, error: type[errors.ProxyError]) -> None:
    patience, request = Patience(), Request(what)
    assert patience.is_lost(request, 0) is None
    lost = patience.is_lost(request, LIMIT_SECONDS + 1)
    assert type(lost) is error and lost.detail
    assert what.value in repr(patience)


def dribble(bytes_per_second: float, seconds: int) -> int | None:
    """When a body that comes at this rate is given up."""
    patience, request = Patience(), Request(Due.BODY)
    for second in range(seconds):
        request.bytes_in = int(bytes_per_second * second)
        if patience.is_lost(request, second) is not None:
            return second
    return None


def test_a_body_has_a_lowest_rate() -> None:
    assert dribble(LOWEST_BYTES_PER_SECOND, 100_000) is None
    assert dribble(1 / 60, 100_000) == 31
    assert dribble(0.9 * LOWEST_BYTES_PER_SECOND, 100_000) == pytest.approx(300, abs=15)


def test_a_body_that_was_fast_has_no_more_in_hand_than_its_limit() -> None:
    patience, request = Patience(), Request(Due.BODY)
    patience.is_lost(request, 0)
    request.bytes_in = 10**9
    assert patience.is_lost(request, 20) is None
    assert patience.is_lost(request, 50) is None
    assert patience.is_lost(request, 50.5) is not None


def test_what_the_service_sends_buys_its_client_no_time() -> None:
    patience, request = Patience(), Request(Due.BODY)
    patience.is_lost(request, 0)
    request.bytes_out = 10**9
    assert patience.is_lost(request, 31) is not None


def test_a_tunnel_that_still_carries_something_is_not_given_up() -> None:
    patience, tunnel = Patience(), Request(Due.END)
    for second in range(0, 1000, 20):
        tunnel.bytes_out += 1
        assert patience.is_lost(tunnel, second) is None
    assert patience.is_lost(tunnel, 1020) is not None


@pytest.mark.parametrize("change", ["what", "interims", "request", "forgotten"])
def test_time_begins_anew_with_whatever_is_due_next(change: str) -> None:
    patience, request = Patience(), Request(Due.RESPONSE)
    assert patience.is_lost(request, 0) is None
    if change == "what":
        request.what = Due.HEAD
    elif change == "interims":
        request.interims = 1
    elif change == "request":
        request = Request(Due.RESPONSE)
    else:
        patience.forget()
    assert patience.is_lost(request, 29) is None
    assert patience.is_lost(request, 58) is None
    assert patience.is_lost(request, 60) is not None


def test_a_client_may_read_slowly_but_not_nothing() -> None:
    patience = Patience()
    for second in range(0, 600, 50):
        assert not patience.is_unread(1000, 10_000 - second, second)
    assert not patience.is_unread(1000, 9450, 550 + STALL_SECONDS)
    assert patience.is_unread(1000, 9450, 551 + STALL_SECONDS)
