"""The statechart of one service: its states and moves, the facts it is told, the orders it gives.

`machine` decides which fact leads where; docs/lifecycle.md draws it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Generic, Protocol, TypeAlias, TypeVar

from autostart_proxy import errors

L = TypeVar("L", bound=Hashable)


class State(Enum):
    """What a service is doing."""

    STOPPED = "stopped"
    ADOPTING = "adopting"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.STOPPED: frozenset({State.ADOPTING, State.STARTING}),
        State.ADOPTING: frozenset(
            {State.READY, State.STARTING, State.STOPPING, State.STOPPED, State.FAILED}
        ),
        State.STARTING: frozenset({State.READY, State.STOPPING}),
        State.READY: frozenset({State.STARTING, State.DRAINING, State.STOPPED, State.FAILED}),
        State.DRAINING: frozenset({State.READY, State.STOPPING, State.STOPPED}),
        State.STOPPING: frozenset({State.STOPPED, State.READY, State.FAILED}),
        State.FAILED: frozenset({State.ADOPTING, State.STARTING, State.STOPPED}),
    }
)
"""Every legal move. The machine asks this table; docs/lifecycle.md is checked against it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A service's time limits in seconds and its bound on waiting requests.

    `idle_timeout` None means that the service never sleeps by itself, `stop_timeout` None that each
    of its parts has a grace period of its own.
    """

    start_timeout: float = 30.0
    prepare_timeout: float = 900.0
    idle_timeout: float | None = 900.0
    stop_timeout: float | None = None
    drain_timeout: float = 30.0
    max_held: int = 1000


class Exit(Protocol):
    """How a part of a service ended; its `str` describes it for the log.

    `code` is the exit status, 128 + signal number for a signal; `out_of_memory` says that the
    kernel killed it.
    """

    @property
    def code(self) -> int: ...
    @property
    def out_of_memory(self) -> bool: ...


# Facts.


@dataclass(frozen=True, slots=True)
class Arrived(Generic[L]):
    """A request wants the service."""

    lease: L


@dataclass(frozen=True, slots=True)
class Departed(Generic[L]):
    """A request is over, or its client left while it was held."""

    lease: L


@dataclass(frozen=True, slots=True)
class Returned(Generic[L]):
    """An admitted request found nobody listening and has sent nothing: it waits again."""

    lease: L


@dataclass(frozen=True, slots=True)
class Woken:
    """Somebody wants the service up without a lease; an operator's word ends a back-off."""

    by_operator: bool = False


@dataclass(frozen=True, slots=True)
class PutToSleep:
    """An operator wants the service stopped; requests that already wait are served first."""


@dataclass(frozen=True, slots=True)
class Launched:
    """Preparation is over, the first container starts: from here `start_timeout` counts."""


@dataclass(frozen=True, slots=True)
class Started:
    """The service answers, whoever started it."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The start is over, without a service that answers."""

    reason: errors.OperationError


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stop is over; with what had to be killed for it."""

    killed: tuple[Exit, ...] = ()


@dataclass(frozen=True, slots=True)
class StopFailed:
    """The stop did not succeed; something may still run."""

    reason: errors.OperationError


@dataclass(frozen=True, slots=True)
class StopUnheard:
    """Nobody could be told to stop the service: what ran still runs."""

    reason: errors.OperationError


@dataclass(frozen=True, slots=True)
class FoundRunning:
    """The service runs though it was not started from here; whether it answers is not known yet.

    `has_healthcheck` is true where the backend itself reports health.
    """

    has_healthcheck: bool = False


@dataclass(frozen=True, slots=True)
class FoundStopped:
    """The service was seen not running; with the exit of one of its parts, if there was one."""

    exit: Exit | None = None


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The service's limits changed; clocks that run keep their beginning."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class Closed:
    """This service takes no more requests; whatever runs is left running.

    `reason` answers the requests that wait and all that follow.
    """

    reason: errors.ProxyError


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = (
    Arrived[L]
    | Departed[L]
    | Returned[L]
    | Woken
    | PutToSleep
    | Launched
    | Started
    | StartFailed
    | Stopped
    | StopFailed
    | StopUnheard
    | FoundRunning
    | FoundStopped
    | Reconfigured
    | Closed
    | Tick
)


# Orders.


@dataclass(frozen=True, slots=True)
class StartBackend:
    """Start what is missing and find out when it answers; supersedes a stop."""


@dataclass(frozen=True, slots=True)
class StopBackend:
    """Stop everything; supersedes a start."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Find out when what runs answers, and start nothing."""

    has_healthcheck: bool


@dataclass(frozen=True, slots=True)
class Abandon:
    """End what is under way: an adoption that has lost its sense, a stop that takes too long."""


@dataclass(frozen=True, slots=True)
class Admit(Generic[L]):
    """Forward this request now."""

    lease: L


@dataclass(frozen=True, slots=True)
class Refuse(Generic[L]):
    """Answer this request with the reason; its lease is over."""

    lease: L
    reason: errors.ProxyError


@dataclass(frozen=True, slots=True)
class Cut(Generic[L]):
    """Abort this request: its drain time is over. Its `Departed` must still follow."""

    lease: L


@dataclass(frozen=True, slots=True)
class Moved:
    """The state changed; for logs and metrics."""

    old: State
    new: State


Effect: TypeAlias = (
    StartBackend | StopBackend | Adopt | Abandon | Admit[L] | Refuse[L] | Cut[L] | Moved
)
