"""The lifecycle's rules, one by one; `test_lifecycle_random.py` tries them all at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from autostart_proxy import errors
from autostart_proxy.lifecycle.events import (
    MOVES,
    Abandon,
    Admit,
    Adopt,
    Arrived,
    Closed,
    Cut,
    Departed,
    Disowned,
    Effect,
    Explain,
    FoundFailing,
    FoundRunning,
    FoundStopped,
    IllegalMove,
    Launched,
    Moved,
    Policy,
    PutToSleep,
    Reconfigured,
    Refuse,
    Returned,
    StartBackend,
    Started,
    StartFailed,
    State,
    StopBackend,
    StopFailed,
    Stopped,
    StopUnheard,
    Tick,
    Woken,
)
from autostart_proxy.lifecycle.exits import ASKED_TO_END
from autostart_proxy.lifecycle.leases import IllegalEvent
from autostart_proxy.lifecycle.machine import Lifecycle
from autostart_proxy.lifecycle.patience import STOP_AGAIN_SECONDS, STOP_MARGIN_SECONDS
from autostart_proxy.lifecycle.remains import LONGEST_SECONDS

POLICY = Policy(
    start_timeout=30, prepare_timeout=100, idle_timeout=60, stop_timeout=10, drain_timeout=20
)
EXITED = errors.ContainerExited()
BROKEN = errors.StopFailed()
NO_DOCKER = errors.DockerUnavailable()


@dataclass(frozen=True)
class Ended:
    """How a part ended, as a backend tells it."""

    code: int
    out_of_memory: bool = False

    def __str__(self) -> str:
        return f"web exited with {self.code}"


CRASH = Ended(3)


def stopped(policy: Policy = POLICY) -> Lifecycle[str]:
    return Lifecycle(policy, now=0.0)


def starting(lease: str = "a") -> Lifecycle[str]:
    life = stopped()
    life.handle(Arrived(lease), 0.0)
    return life


def launched() -> Lifecycle[str]:
    life = starting()
    life.handle(Launched(), 1.0)
    return life


def ready(*, in_use: bool = False, policy: Policy = POLICY) -> Lifecycle[str]:
    life = stopped(policy)
    life.handle(Arrived("a"), 0.0)
    life.handle(Launched(), 0.0)
    life.handle(Started(), 0.0)
    if not in_use:
        life.handle(Departed("a"), 0.0)
    return life


def adopting() -> Lifecycle[str]:
    life = stopped()
    life.handle(FoundRunning(), 0.0)
    return life


def draining() -> Lifecycle[str]:
    life = ready(in_use=True)
    life.handle(PutToSleep(), 0.0)
    return life


def stopping() -> Lifecycle[str]:
    life = ready()
    life.handle(PutToSleep(), 0.0)
    return life


def failed() -> Lifecycle[str]:
    """Failed twice, so that the back-off is running."""
    life = stopped()
    for _ in range(2):
        life.handle(Arrived("a"), 0.0)
        life.handle(StartFailed(EXITED), 0.0)
        life.handle(Stopped(), 0.0)
    return life


# Waking and holding.


def test_the_first_request_starts_the_service_and_waits() -> None:
    life = stopped()
    assert life.handle(Arrived("a"), 0.0) == [
        Moved(State.STOPPED, State.STARTING),
        StartBackend(),
    ]
    assert list(life.held) == ["a"]


def test_a_hundred_requests_cause_one_start_and_are_all_admitted() -> None:
    life = stopped()
    effects = [e for n in range(100) for e in life.handle(Arrived(str(n)), 0.0)]
    assert effects.count(StartBackend()) == 1
    life.handle(Launched(), 0.1)
    admitted = life.handle(Started(), 0.2)
    assert [e.lease for e in admitted if isinstance(e, Admit)] == [str(n) for n in range(100)]
    assert not life.held


def test_a_request_for_a_ready_service_is_admitted_in_the_same_step() -> None:
    life = ready()
    assert life.handle(Arrived("b"), 1.0) == [Admit("b")]


def test_more_than_max_held_requests_are_refused() -> None:
    life = stopped(Policy(max_held=1))
    life.handle(Arrived("a"), 0.0)
    [refusal] = life.handle(Arrived("b"), 0.0)
    assert isinstance(refusal, Refuse) and isinstance(refusal.reason, errors.TooManyHeld)
    assert list(life.held) == ["a"]


def test_when_all_waiters_leave_the_start_goes_on() -> None:
    life = starting()
    assert life.handle(Departed("a"), 1.0) == []
    assert life.state is State.STARTING
    assert life.handle(Started(), 2.0) == [Moved(State.STARTING, State.READY)]


def test_a_start_measures_its_own_duration() -> None:
    life = launched()
    life.handle(Started(), 2.5)
    assert life.last_start_seconds == 2.5


def test_waking_without_a_request_starts_and_the_idle_clock_runs() -> None:
    life = stopped()
    assert StartBackend() in life.handle(Woken(), 0.0)
    life.handle(Started(), 5.0)
    assert life.deadline == 65.0


def test_waking_a_ready_service_counts_as_use() -> None:
    life = ready()
    life.handle(Woken(by_operator=True), 30.0)
    assert life.deadline == 90.0


# Deadlines of a start.


def test_requests_wait_their_time_and_the_start_goes_on_without_them() -> None:
    life = launched()
    life.handle(Arrived("b"), 10.0)
    assert life.deadline == 31.0, "of the request that was there when the first container started"
    refusal, explained = life.handle(Tick(), 31.0)
    assert isinstance(refusal, Refuse) and isinstance(refusal.reason, errors.HoldExpired)
    assert refusal.lease == "a" and explained == Explain(refusal.reason)
    assert (life.state, life.deadline) == (State.STARTING, 40.0)
    [refusal] = life.handle(Tick(), 40.0)
    assert isinstance(refusal, Refuse) and refusal.lease == "b"
    assert life.handle(Started(), 60.0) == [Moved(State.STARTING, State.READY)]
    assert life.last_start_seconds == 60.0


def test_a_later_request_finds_the_long_start_done() -> None:
    life = launched()
    life.handle(Tick(), 31.0)
    assert life.handle(Arrived("b"), 50.0) == []
    assert Admit("b") in life.handle(Started(), 60.0)


def test_a_start_that_never_ends_is_given_up_when_a_preparation_would_be() -> None:
    life = launched()
    life.handle(Tick(), 31.0)
    life.handle(Arrived("b"), 100.0)
    assert life.deadline == 101.0
    refusal, *orders = life.handle(Tick(), 101.0)
    assert isinstance(refusal, Refuse) and isinstance(refusal.reason, errors.HoldExpired)
    assert orders == [Moved(State.STARTING, State.STOPPING), StopBackend()]


def test_a_start_that_nobody_waits_for_is_explained_as_well() -> None:
    life = stopped()
    life.handle(Woken(by_operator=True), 0.0)
    life.handle(Launched(), 1.0)
    assert life.deadline == 31.0
    [explained] = life.handle(Tick(), 31.0)
    assert isinstance(explained, Explain)
    assert life.deadline == 101.0


def test_a_service_that_calls_itself_unhealthy_is_given_up_once_requests_have_waited() -> None:
    early, late = launched(), launched()
    assert early.handle(FoundFailing(), 5.0) == [], "it may recover"
    assert early.handle(Tick(), 31.0)[-1] == StopBackend()
    assert isinstance(early.failure, errors.Unhealthy)
    late.handle(Tick(), 31.0)
    assert late.handle(FoundFailing(), 40.0)[-1] == StopBackend()
    assert isinstance(late.failure, errors.Unhealthy)


def test_what_was_unhealthy_in_an_earlier_start_does_not_count() -> None:
    life = launched()
    life.handle(FoundFailing(), 5.0)
    life.handle(StartFailed(EXITED), 6.0)
    life.handle(Stopped(), 7.0)
    life.handle(Arrived("b"), 8.0)
    life.handle(Launched(), 8.0)
    assert isinstance(life.handle(Tick(), 38.0)[-1], Explain)


def test_while_images_are_pulled_each_request_waits_its_own_time_and_the_pull_goes_on() -> None:
    life = starting()
    life.handle(Arrived("b"), 10.0)
    assert life.deadline == 30.0
    [refusal] = life.handle(Tick(), 30.0)
    assert isinstance(refusal, Refuse) and refusal.lease == "a"
    assert life.deadline == 40.0
    assert life.state is State.STARTING


def test_a_preparation_that_never_ends_fails_the_start() -> None:
    life = starting()
    life.handle(Departed("a"), 1.0)
    assert life.deadline == 130.0
    assert StopBackend() in life.handle(Tick(), 130.0)
    assert isinstance(life.failure, errors.StartFailed)


def test_a_tick_before_the_deadline_changes_nothing() -> None:
    life = launched()
    assert life.handle(Tick(), 30.9) == []
    assert stopped().handle(Tick(), 1.0) == []


# Failure.


def test_a_failed_start_refuses_all_and_passes_through_stopping() -> None:
    life = launched()
    assert life.handle(StartFailed(EXITED), 2.0) == [
        Refuse("a", EXITED),
        Moved(State.STARTING, State.STOPPING),
        StopBackend(),
    ]
    assert life.handle(Stopped(), 3.0) == [Moved(State.STOPPING, State.FAILED)]


def test_a_request_while_a_failed_start_is_cleaned_up_gets_its_reason() -> None:
    life = launched()
    life.handle(StartFailed(EXITED), 2.0)
    assert life.handle(Arrived("b"), 2.1) == [Refuse("b", EXITED)]


def test_after_one_failure_the_next_request_tries_again() -> None:
    life = launched()
    life.handle(StartFailed(EXITED), 2.0)
    life.handle(Stopped(), 3.0)
    assert StartBackend() in life.handle(Arrived("b"), 3.0)
    assert life.failure is None


def test_a_crash_loop_backs_off_and_starts_at_most_five_times_a_minute() -> None:
    life = stopped()
    starts = []
    for tenth in range(1200):
        now = tenth / 10
        if StartBackend() in life.handle(Arrived(f"r{tenth}"), now):
            starts.append(now)
            life.handle(StartFailed(EXITED), now)
            life.handle(Stopped(), now)
    assert max(sum(at <= s < at + 60 for s in starts) for at in starts) <= 5
    assert any(s >= 60 for s in starts), "it must try again by itself"


def test_while_backing_off_requests_get_the_reason_at_once() -> None:
    life = failed()
    assert life.handle(Arrived("b"), 1.0) == [Refuse("b", EXITED)]


def test_while_backing_off_a_visitor_cannot_wake_it_but_an_operator_can() -> None:
    life = failed()
    assert life.handle(Woken(), 1.0) == []
    assert StartBackend() in life.handle(Woken(by_operator=True), 1.0)


def test_a_back_off_outlasts_what_somebody_does_by_hand_meanwhile() -> None:
    life = failed()
    life.handle(FoundRunning(), 0.5)
    life.handle(Started(), 0.6)
    life.handle(FoundStopped(), 1.0)
    assert life.state is State.STOPPED
    assert life.handle(Arrived("b"), 1.5) == [Refuse("b", EXITED)]
    assert life.handle(Woken(), 1.5) == [] and life.refusal(1.5) is EXITED
    assert life.refusal(2.0) is None
    assert StartBackend() in life.handle(Arrived("c"), 2.0)


def test_a_failed_service_nobody_asks_for_is_stopped_after_a_minute() -> None:
    life = failed()
    assert life.deadline == 60.0
    assert life.handle(Tick(), 60.0) == [Moved(State.FAILED, State.STOPPED)]


def test_five_troubles_in_a_minute_wait_for_the_oldest_to_be_a_minute_old() -> None:
    life = stopped()
    for at in (0.0, 0.0, 2.0, 6.0, 14.0):
        assert StartBackend() in life.handle(Arrived("a"), at)
        life.handle(StartFailed(EXITED), at)
        life.handle(Stopped(), at)
    assert life.handle(Arrived("b"), 59.9) == [Refuse("b", EXITED)]
    assert StartBackend() in life.handle(Arrived("c"), 60.0)


def test_a_stop_that_fails_leads_to_failed_and_the_next_request_starts() -> None:
    life = stopping()
    assert life.handle(StopFailed(BROKEN), 1.0) == [Moved(State.STOPPING, State.FAILED)]
    assert life.failure is BROKEN
    assert StartBackend() in life.handle(Arrived("b"), 2.0)


def test_a_stop_that_reaches_nobody_leaves_the_service_ready_and_its_requests_served() -> None:
    life = stopping()
    life.handle(Arrived("b"), 1.0)
    assert life.handle(StopUnheard(NO_DOCKER), 2.0) == [
        Moved(State.STOPPING, State.READY),
        Admit("b"),
    ]
    life.handle(Departed("b"), 3.0)
    assert (life.failure, life.deadline) == (NO_DOCKER, 63.0)
    assert StopBackend() in life.handle(Tick(), 63.0)
    life.handle(Stopped(), 64.0)
    assert (life.failure, life.state) == (None, State.STOPPED)


def test_a_stop_that_reaches_nobody_is_not_repeated_at_once_however_short_the_idle_time() -> None:
    life = ready(policy=Policy(idle_timeout=0.0))
    assert StopBackend() in life.handle(Tick(), 0.0)
    life.handle(StopUnheard(NO_DOCKER), 1.0)
    assert life.deadline == 1.0 + STOP_AGAIN_SECONDS


def test_a_service_that_nobody_could_stop_may_be_stopped_by_hand() -> None:
    life = stopping()
    life.handle(StopUnheard(NO_DOCKER), 1.0)
    assert life.handle(FoundStopped(), 2.0) == [Moved(State.READY, State.STOPPED)]
    assert life.failure is None


def test_a_failed_start_whose_stop_reaches_nobody_is_failed() -> None:
    life = starting()
    life.handle(StartFailed(EXITED), 0.0)
    assert life.handle(StopUnheard(NO_DOCKER), 1.0) == [Moved(State.STOPPING, State.FAILED)]
    assert life.failure is EXITED


def test_a_stop_that_never_ends_is_abandoned() -> None:
    life = stopping()
    assert life.deadline == 10 + STOP_MARGIN_SECONDS
    assert life.handle(Tick(), 10 + STOP_MARGIN_SECONDS) == [
        Abandon(),
        Moved(State.STOPPING, State.FAILED),
    ]


# Sleeping.


def test_the_idle_clock_starts_at_the_end_of_the_last_lease() -> None:
    life = ready(in_use=True)
    assert life.deadline is None
    life.handle(Departed("a"), 100.0)
    assert life.deadline == 160.0


def test_an_idle_service_stops() -> None:
    life = ready()
    assert life.handle(Tick(), 60.0) == [
        Moved(State.READY, State.DRAINING),
        Moved(State.DRAINING, State.STOPPING),
        StopBackend(),
    ]
    assert life.handle(Stopped(), 61.0) == [Moved(State.STOPPING, State.STOPPED)]


def test_a_service_in_use_never_stops_by_itself() -> None:
    life = ready(in_use=True)
    assert life.handle(Tick(), 1e9) == []


def test_a_service_without_idle_timeout_never_sleeps() -> None:
    life = ready(policy=Policy(idle_timeout=None))
    assert life.deadline is None
    assert life.handle(Tick(), 1e9) == []


def test_a_request_during_stopping_starts_the_service_again() -> None:
    life = stopping()
    assert life.handle(Arrived("b"), 1.0) == []
    assert StartBackend() in life.handle(Stopped(), 2.0)
    assert life.state is State.STARTING


def test_a_request_held_while_stopping_waits_its_whole_time_for_the_start() -> None:
    life = stopping()
    life.handle(Arrived("b"), 1.0)
    life.handle(Stopped(), 50.0)
    assert life.deadline == 80.0


def test_putting_to_sleep_waits_for_open_requests() -> None:
    life = draining()
    assert life.state is State.DRAINING
    assert StopBackend() in life.handle(Departed("a"), 5.0)


def test_requests_still_open_after_the_drain_time_are_cut() -> None:
    life = draining()
    assert life.handle(Tick(), 20.0) == [
        Cut("a"),
        Moved(State.DRAINING, State.STOPPING),
        StopBackend(),
    ]
    assert life.handle(Departed("a"), 20.1) == []


def test_a_request_while_draining_waits_and_starts_the_service_again() -> None:
    life = draining()
    assert life.handle(Arrived("b"), 1.0) == []
    life.handle(Departed("a"), 2.0)
    assert StartBackend() in life.handle(Stopped(), 3.0)


def test_waking_a_draining_service_admits_who_waits() -> None:
    life = draining()
    life.handle(Arrived("b"), 1.0)
    assert life.handle(Woken(), 2.0) == [Moved(State.DRAINING, State.READY), Admit("b")]


def test_putting_a_starting_service_to_sleep_serves_those_who_wait_first() -> None:
    life = launched()
    assert life.handle(PutToSleep(), 2.0) == []
    effects = life.handle(Started(), 3.0)
    assert Admit("a") in effects
    assert life.state is State.DRAINING


def test_putting_a_starting_service_nobody_waits_for_to_sleep_ends_the_start() -> None:
    life = stopped()
    life.handle(Woken(), 0.0)
    assert StopBackend() in life.handle(PutToSleep(), 1.0)
    assert life.handle(Stopped(), 2.0) == [Moved(State.STOPPING, State.STOPPED)]


def test_putting_a_stopped_service_to_sleep_changes_nothing() -> None:
    assert stopped().handle(PutToSleep(), 1.0) == []


# What happens from outside.


def test_a_service_found_running_is_adopted_once_it_answers_with_a_full_idle_time() -> None:
    life = stopped()
    assert life.handle(FoundRunning(has_healthcheck=True), 5.0) == [
        Moved(State.STOPPED, State.ADOPTING),
        Adopt(has_healthcheck=True),
    ]
    assert life.handle(Started(), 7.0) == [Moved(State.ADOPTING, State.READY)]
    assert (life.deadline, life.awake_because) == (67.0, "somebody else")
    assert life.last_start_seconds is None, "nobody saw it start"


def test_requests_wait_for_what_is_being_adopted_and_nothing_is_started() -> None:
    life = adopting()
    assert life.handle(Arrived("a"), 1.0) == []
    assert life.handle(Woken(), 1.0) == []
    assert life.handle(Started(), 2.0) == [Moved(State.ADOPTING, State.READY), Admit("a")]


def test_who_still_waits_at_the_end_of_an_adoption_gets_a_start() -> None:
    life = adopting()
    life.handle(Arrived("a"), 10.0)
    assert life.deadline == 30.0
    assert life.handle(Tick(), 30.0) == [Moved(State.ADOPTING, State.STARTING), StartBackend()]
    life.handle(Launched(), 31.0)
    assert life.deadline == 61.0


def test_an_operator_who_still_waits_at_the_end_of_an_adoption_gets_a_start() -> None:
    life = adopting()
    life.handle(Woken(by_operator=True), 10.0)
    assert StartBackend() in life.handle(Tick(), 30.0)


def test_what_never_answers_and_nobody_waits_for_is_adopted_to_be_put_to_sleep() -> None:
    life = adopting()
    assert life.handle(Tick(), 30.0) == [Abandon(), Moved(State.ADOPTING, State.READY)]
    assert life.deadline == 90.0


def test_what_is_being_adopted_can_be_put_to_sleep() -> None:
    life = adopting()
    assert life.handle(PutToSleep(), 1.0) == [
        Moved(State.ADOPTING, State.STOPPING),
        StopBackend(),
    ]


def test_what_is_being_adopted_serves_who_waits_before_it_is_put_to_sleep() -> None:
    life = adopting()
    life.handle(Arrived("a"), 1.0)
    assert life.handle(PutToSleep(), 2.0) == []
    assert Admit("a") in life.handle(Started(), 3.0)
    assert life.state is State.DRAINING


def test_what_is_being_adopted_may_end_and_who_waits_gets_a_start() -> None:
    life = adopting()
    assert life.handle(FoundStopped(), 1.0) == [Abandon(), Moved(State.ADOPTING, State.STOPPED)]
    life = adopting()
    life.handle(Arrived("a"), 1.0)
    assert StartBackend() in life.handle(FoundStopped(), 2.0)


def test_what_crashes_while_it_is_adopted_has_failed() -> None:
    life = adopting()
    assert life.handle(FoundStopped(CRASH), 1.0) == [Abandon(), Moved(State.ADOPTING, State.FAILED)]
    assert "exited with 3" in str(life.failure)


def test_what_is_not_what_answers_is_not_adopted_and_not_stopped() -> None:
    life = adopting()
    life.handle(Arrived("a"), 1.0)
    stranger = errors.PortInUse()
    assert life.handle(Disowned(stranger), 2.0) == [
        Refuse("a", stranger),
        Moved(State.ADOPTING, State.FAILED),
    ]
    assert life.failure is stranger
    assert StopBackend() in life.handle(PutToSleep(), 3.0)


def test_what_remains_of_a_start_whose_cleaning_up_failed_is_stopped_some_day() -> None:
    life = launched()
    life.handle(FoundStopped(remains=True), 2.0)
    life.handle(StartFailed(EXITED), 3.0)
    life.handle(StopFailed(BROKEN), 4.0)
    while life.state is not State.STOPPING:
        assert life.deadline is not None
        life.handle(Tick(), life.deadline)


def test_found_running_is_no_news_while_starting_adopting_or_ready() -> None:
    assert launched().handle(FoundRunning(), 2.0) == []
    assert adopting().handle(FoundRunning(), 2.0) == []
    assert ready().handle(FoundRunning(), 2.0) == []


def test_a_failed_service_found_running_is_adopted() -> None:
    life = failed()
    life.handle(FoundRunning(), 1.0)
    assert (life.state, life.failure) == (State.ADOPTING, None)


def test_what_refused_to_stop_is_used_on_and_stopped_later() -> None:
    life = stopping()
    life.handle(StopFailed(BROKEN), 1.0)
    life.handle(FoundRunning(), 1.0)
    life.handle(Started(), 2.0)
    assert (life.state, life.failure) == (State.READY, BROKEN), "status goes on telling it"
    assert StopBackend() in life.handle(Tick(), 62.0)


@pytest.mark.parametrize("code", sorted(ASKED_TO_END))
def test_a_service_stopped_by_hand_is_stopped(code: int) -> None:
    for seen in (FoundStopped(), FoundStopped(Ended(code))):
        assert ready().handle(seen, 1.0) == [Moved(State.READY, State.STOPPED)]
        assert draining().handle(seen, 1.0) == [Moved(State.DRAINING, State.STOPPED)]


@pytest.mark.parametrize("exit", [CRASH, Ended(137, out_of_memory=True)], ids=["3", "memory"])
def test_a_crash_is_a_failure_and_the_next_request_starts_again(exit: Ended) -> None:
    life = ready()
    assert life.handle(FoundStopped(exit), 1.0) == [Moved(State.READY, State.FAILED)]
    assert StartBackend() in life.handle(Arrived("b"), 1.0)


def test_a_crash_says_what_was_true() -> None:
    life = ready()
    life.handle(FoundStopped(CRASH), 1.0)
    assert str(life.failure) == "The service ended by itself. (while ready: web exited with 3)"


# What is left of a service.


def test_what_a_crash_leaves_running_is_stopped_after_a_while_like_everything_else() -> None:
    life = ready(policy=Policy(idle_timeout=5))
    life.handle(FoundStopped(CRASH, remains=True), 1.0)
    assert (life.state, life.deadline) == (State.FAILED, 6.0)
    assert life.handle(Tick(), 6.0) == [Moved(State.FAILED, State.STOPPING), StopBackend()]
    assert life.handle(Stopped(), 7.0) == [Moved(State.STOPPING, State.FAILED)]
    assert life.handle(FoundStopped(), 7.0) == []
    assert life.deadline == 67.0
    assert life.handle(Tick(), 67.0) == [Moved(State.FAILED, State.STOPPED)]


@pytest.mark.parametrize("idle", [None, 3600.0])
def test_what_a_crash_leaves_running_is_not_kept_for_as_long_as_a_service(
    idle: float | None,
) -> None:
    life = ready(policy=Policy(idle_timeout=idle))
    life.handle(FoundStopped(CRASH, remains=True), 1.0)
    assert life.deadline == 1.0 + LONGEST_SECONDS


def test_a_request_uses_what_a_crash_left_running() -> None:
    life = ready()
    life.handle(FoundStopped(CRASH, remains=True), 1.0)
    assert StartBackend() in life.handle(Arrived("b"), 2.0)
    life.handle(Launched(), 2.0)
    life.handle(Started(), 3.0)
    life.handle(Departed("b"), 4.0)
    assert life.deadline == 64.0, "awake like any other"


def test_a_request_during_the_tidying_waits_and_starts_the_service_again() -> None:
    life = ready()
    life.handle(FoundStopped(CRASH, remains=True), 1.0)
    life.handle(Tick(), 61.0)
    assert life.state is State.STOPPING
    assert life.handle(Arrived("b"), 61.5) == []
    assert StartBackend() in life.handle(Stopped(), 62.0)


def test_what_somebody_left_running_is_stopped_when_it_would_have_fallen_asleep() -> None:
    life = ready()
    life.handle(FoundStopped(remains=True), 10.0)
    assert (life.state, life.deadline) == (State.STOPPED, 70.0)
    life.handle(FoundStopped(remains=True), 40.0)
    assert life.deadline == 70.0, "since it was first seen"
    assert StopBackend() in life.handle(Tick(), 70.0)
    assert life.handle(Stopped(), 71.0) == [Moved(State.STOPPING, State.STOPPED)]


def test_what_is_left_at_boot_is_no_different() -> None:
    life = stopped()
    life.handle(FoundStopped(remains=True), 0.0)
    assert life.deadline == 60.0
    life.handle(FoundStopped(), 1.0)
    assert life.deadline is None


def test_what_is_left_of_a_service_that_never_sleeps_is_somebodys_business() -> None:
    life = stopped(Policy(idle_timeout=None))
    life.handle(FoundStopped(remains=True), 0.0)
    assert life.deadline is None
    assert StopBackend() in life.handle(PutToSleep(), 1.0), "but an operator may end it"


def test_an_operator_puts_to_sleep_whatever_still_runs_of_a_failed_service() -> None:
    life = failed()
    assert life.handle(PutToSleep(), 1.0) == [
        Moved(State.FAILED, State.STOPPING),
        StopBackend(),
    ]
    assert life.handle(Stopped(), 2.0) == [Moved(State.STOPPING, State.STOPPED)]
    assert life.failure is None


def test_what_is_left_and_cannot_be_told_to_stop_has_not_become_ready_by_that() -> None:
    life = stopped()
    life.handle(FoundStopped(remains=True), 0.0)
    life.handle(Tick(), 60.0)
    assert life.handle(StopUnheard(NO_DOCKER), 61.0) == [Moved(State.STOPPING, State.FAILED)]
    assert life.failure is NO_DOCKER


def test_a_service_that_loses_a_part_while_it_drains_is_stopped_at_once() -> None:
    life = draining()
    assert life.handle(FoundStopped(CRASH, remains=True), 1.0) == [
        Moved(State.DRAINING, State.STOPPING),
        StopBackend(),
    ]


# Reasons.


def reasons(effects: list[Effect[str]]) -> list[str]:
    return [each.because for each in effects if isinstance(each, Moved)]


def test_moves_say_why() -> None:
    life = stopped()
    assert reasons(life.handle(Arrived("a", "request 1 of 192.0.2.1"), 0.0)) == [
        "request 1 of 192.0.2.1"
    ]
    life.handle(Arrived("b", "request 2 of 192.0.2.2"), 0.5)
    assert life.awake_because == "request 1 of 192.0.2.1"
    life.handle(Launched(), 0.0)
    life.handle(Started(), 1.0)
    life.handle(Departed("a"), 1.0)
    life.handle(Departed("b"), 1.0)
    assert reasons(life.handle(Tick(), 61.0)) == ["idle", "nothing is open any more"]
    assert reasons(draining().handle(Tick(), 20.0)) == ["the drain time is over"]
    assert reasons(ready().handle(PutToSleep(), 1.0)) == ["an operator", "nothing is open any more"]
    assert reasons(ready().handle(FoundStopped(), 1.0)) == ["stopped by somebody else"]
    assert reasons(ready().handle(FoundStopped(CRASH), 1.0)) == ["ended by itself"]
    assert reasons(launched().handle(StartFailed(EXITED), 2.0)) == ["the start failed"]
    assert reasons(stopped().handle(Woken(cause="request 3 of unix"), 0.0)) == ["request 3 of unix"]


def test_what_a_stop_had_to_kill_is_known_until_the_next() -> None:
    life = stopping()
    life.handle(Stopped((Ended(137),)), 1.0)
    assert life.killed == (Ended(137),)


def test_an_exit_during_a_start_fails_it_at_once() -> None:
    life = launched()
    refusal, *orders = life.handle(FoundStopped(CRASH), 2.0)
    assert isinstance(refusal, Refuse) and isinstance(refusal.reason, errors.ContainerExited)
    assert refusal.reason.detail == "web exited with 3"
    assert orders == [Moved(State.STARTING, State.STOPPING), StopBackend()]


@pytest.mark.parametrize("code", sorted(ASKED_TO_END))
def test_during_a_start_nothing_may_end_however_politely(code: int) -> None:
    launched_ = launched()
    launched_.handle(FoundStopped(Ended(code)), 2.0)
    assert launched_.state is State.STOPPING


def test_what_ended_before_the_first_container_was_launched_is_no_news() -> None:
    assert starting().handle(FoundStopped(CRASH), 2.0) == []
    assert launched().handle(FoundStopped(), 2.0) == []


def test_an_admitted_request_that_found_nobody_is_held_while_the_service_is_healed() -> None:
    life = ready(in_use=True)
    assert life.handle(Returned("a"), 1.0) == [Moved(State.READY, State.STARTING), StartBackend()]
    assert Admit("a") in life.handle(Started(), 2.0)


def test_a_returned_request_joins_a_start_that_is_under_way() -> None:
    life = ready(in_use=True)
    life.handle(Arrived("b"), 0.0)
    life.handle(Returned("a"), 1.0)
    assert life.handle(Returned("b"), 1.0) == []
    assert list(life.held) == ["a", "b"]


# Reload and shutdown.


def test_new_limits_hold_for_clocks_that_already_run() -> None:
    life = ready()
    life.handle(Reconfigured(Policy(idle_timeout=5)), 1.0)
    assert life.deadline == 5.0


def test_a_closed_service_refuses_who_waits_and_who_comes_and_lets_the_rest_finish() -> None:
    life = ready(in_use=True)
    life.handle(Returned("a"), 1.0)
    gone = errors.ShuttingDown()
    assert life.handle(Closed(gone), 2.0) == [Refuse("a", gone)]
    assert life.handle(Arrived("b"), 3.0) == [Refuse("b", gone)]
    assert life.deadline is None


def test_a_closed_ready_service_admits_nobody_but_flowing_requests_finish() -> None:
    life = ready(in_use=True)
    gone = errors.ShuttingDown()
    life.handle(Closed(gone), 1.0)
    assert life.handle(Arrived("b"), 1.0) == [Refuse("b", gone)]
    assert life.handle(Departed("a"), 2.0) == []


# Misuse.


@pytest.mark.parametrize(
    ("life", "event"),
    [
        (stopped(), Departed("a")),
        (stopped(), Returned("a")),
        (stopped(), Launched()),
        (stopped(), Started()),
        (stopped(), StartFailed(EXITED)),
        (stopped(), Stopped()),
        (adopting(), Launched()),
        (adopting(), StartFailed(EXITED)),
        (starting(), Disowned(errors.PortInUse())),
        (ready(), Disowned(errors.PortInUse())),
        (ready(), Started()),
        (ready(), StopFailed(BROKEN)),
        (ready(), StopUnheard(NO_DOCKER)),
        (starting("a"), Arrived("a")),
        (ready(in_use=True), Arrived("a")),
    ],
)
def test_an_event_that_cannot_have_happened_raises_and_changes_nothing(
    life: Lifecycle[str], event: Departed[str]
) -> None:
    before = (life.state, life.since, dict(life.held), dict(life.flowing), life.deadline)
    with pytest.raises(IllegalEvent):
        life.handle(event, 9.0)
    assert before == (life.state, life.since, life.held, life.flowing, life.deadline)


def test_a_move_that_is_not_in_the_table_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    life = starting()
    monkeypatch.setattr("autostart_proxy.lifecycle.machine.MOVES", {State.STARTING: frozenset()})
    with pytest.raises(IllegalMove, match="starting -> ready"):
        life.handle(Started(), 1.0)
    assert life.state is State.STARTING


def test_the_repr_tells_the_state() -> None:
    assert repr(starting()) == "<Lifecycle starting since 0.000 held=1 flowing=0>"


# The documentation.


def test_the_documented_diagram_shows_exactly_the_legal_moves() -> None:
    text = (Path(__file__).parents[2] / "docs" / "lifecycle.md").read_text()
    assert ";" not in text.partition("```mermaid")[2].partition("```")[0], "it would end a line"
    drawn = set(re.findall(r"^\s+(\w+) --> (\w+)(?:: .*)?$", text, re.MULTILINE))
    assert drawn == {(old.value, new.value) for old, news in MOVES.items() for new in news}
