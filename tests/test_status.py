"""What operators are told of a service, state by state."""

from __future__ import annotations

import pytest

from autostart_proxy import errors
from autostart_proxy.lifecycle.events import (
    Arrived,
    Departed,
    Event,
    FoundRunning,
    Launched,
    Policy,
    PutToSleep,
    Started,
    StartFailed,
    State,
    Stopped,
    StopUnheard,
    Woken,
)
from autostart_proxy.lifecycle.machine import Lifecycle
from autostart_proxy.status import status_of, why

UP: list[Event[str]] = [Arrived("a"), Launched(), Started()]
BROKEN = errors.StartFailed(detail="port taken")


def after(*told: Event[str], policy: Policy = Policy()) -> Lifecycle[str]:  # noqa: B008 - frozen
    life: Lifecycle[str] = Lifecycle(policy, now=0.0)
    for event in told:
        life.handle(event, 1.0)
    return life


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        ([], State.STOPPED, "idle"),
        ([FoundRunning()], State.ADOPTING, "found running, does not answer yet"),
        ([Arrived("a")], State.STARTING, "woken by a request"),
        ([Woken()], State.STARTING, "woken by a visitor"),
        ([Woken(by_operator=True)], State.STARTING, "woken by an operator"),
        (UP, State.READY, "in use, woken by a request"),
        ([*UP, Departed("a")], State.READY, "recently used, woken by a request"),
        ([FoundRunning(), Started()], State.READY, "recently used, woken by somebody else"),
        ([*UP, PutToSleep()], State.DRAINING, "put to sleep, waiting for open requests"),
        ([*UP, Departed("a"), PutToSleep()], State.STOPPING, "idle"),
        ([Arrived("a"), StartFailed(BROKEN)], State.STOPPING, str(BROKEN)),
        ([Arrived("a"), StartFailed(BROKEN), Stopped()], State.FAILED, str(BROKEN)),
        (
            [*UP, Departed("a"), PutToSleep(), StopUnheard(errors.DockerUnavailable())],
            State.READY,
            "could not be put to sleep: The container engine is not available.",
        ),
    ],
)
def test_every_state_says_why(told: list[Event[str]], state: State, words: str) -> None:
    life = after(*told)
    assert (life.state, why(life)) == (state, words)


def test_a_failure_is_told_to_clients_without_its_details_and_with_the_next_try() -> None:
    failed: list[Event[str]] = [Arrived("a"), StartFailed(BROKEN), Stopped()]
    once = status_of("a.example", "A", after(*failed), 1.0)
    assert (once.error, once.message) == ("start_failed", "The service could not be started.")
    assert once.retry_in_seconds is None, "after one failure, at once"
    twice = status_of("a.example", "A", after(*failed, *failed), 1.5)
    assert twice.retry_in_seconds == 1.5
    later = status_of("a.example", "A", after(*failed, *failed), 3.5)
    assert later.retry_in_seconds is None
    assert later.error == "start_failed"


def test_what_never_sleeps_says_so() -> None:
    life = after(*UP, Departed("a"), policy=Policy(idle_timeout=None))
    assert why(life) == "never sleeps"
    assert status_of("a.example", "A", life, 5.0).sleeps_in_seconds is None


def test_a_status_counts_and_measures() -> None:
    life = after(*UP, Arrived("b"), Departed("a"), policy=Policy(idle_timeout=60))
    status = status_of("a.example", "A", life, 11.0)
    assert (status.host, status.name, status.state) == ("a.example", "A", "ready")
    assert (status.leases, status.held, status.since_seconds) == (1, 0, 10.0)
    assert (status.last_start_seconds, status.sleeps_in_seconds) == (0.0, None)
    life.handle(Departed("b"), 12.0)
    assert status_of("a.example", "A", life, 20.0).sleeps_in_seconds == 52.0
