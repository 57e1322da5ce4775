"""What `autostart-proxy status` tells of one service, and why it is as it is, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from autostart_proxy.lifecycle.events import State
from autostart_proxy.lifecycle.machine import Lifecycle

ASLEEP = frozenset({State.STOPPED.value, State.FAILED.value})
"""The states in which a service has to be started before it can be used."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service at one moment; durations in seconds.

    `leases` are the requests it serves, `held` those that wait for it. `last_start_seconds` is None
    before the first start, `sleeps_in_seconds` where it is in use, not awake, or never sleeps.
    `why` is for operators. `error` and `message` are what clients are told of a start or stop that
    failed; `retry_in_seconds` how long the next start has to wait because of it.
    """

    host: str
    name: str
    state: str
    since_seconds: float
    leases: int
    held: int
    last_start_seconds: float | None
    why: str
    sleeps_in_seconds: float | None
    error: str | None = None
    message: str | None = None
    retry_in_seconds: float | None = None


def status_of(host: str, name: str, life: Lifecycle[Any], now: float) -> ServiceStatus:
    """Look at a service's lifecycle at this moment of its clock."""
    idle_deadline, failure = life.idle_deadline, life.failure
    refused = life.refusal(now) is not None
    return ServiceStatus(
        host=host,
        name=name,
        state=life.state.value,
        since_seconds=round(now - life.since, 3),
        leases=len(life.flowing),
        held=len(life.held),
        last_start_seconds=life.last_start_seconds and round(life.last_start_seconds, 3),
        why=why(life),
        sleeps_in_seconds=idle_deadline and round(max(0.0, idle_deadline - now), 3),
        error=failure.tag if failure else None,
        message=failure.public if failure else None,
        retry_in_seconds=round(life.backoff.due_at - now, 3) if refused else None,
    )


def why(life: Lifecycle[Any]) -> str:
    """Why a service is in the state it is in, in a few words."""
    match life.state:
        case State.ADOPTING:
            return "found running, does not answer yet"
        case State.STOPPED if life.failure is None and life.killed:
            return f"idle; had to be killed: {', '.join(map(str, life.killed))}"
        case State.STOPPED | State.STOPPING:
            return "idle" if life.failure is None else str(life.failure)
        case State.FAILED:
            return str(life.failure)
        case State.STARTING:
            return f"woken by {life.awake_because}"
        case State.DRAINING:
            return "put to sleep, waiting for open requests"
        case State.READY if life.flowing:
            return f"in use, woken by {life.awake_because}"
        case State.READY if life.failure is not None:
            return f"could not be put to sleep: {life.failure}"
        case State.READY if life.policy.idle_timeout is None:
            return "never sleeps"
        case State.READY:
            return f"recently used, woken by {life.awake_because}"
        case _:
            assert_never(life.state)
