"""The statechart of one service: its states and moves, the facts it is told, the orders it gives.

`machine` decides which fact leads where; docs/lifecycle.md draws it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

from autostart_proxy import errors
from autostart_proxy.lifecycle.exits import Exit

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


class IllegalMove(Exception):
    """A move that is not in the table: a bug in the machine."""


MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.STOPPED: frozenset({State.ADOPTING, State.STARTING, State.STOPPING}),
        State.ADOPTING: frozenset(
            {State.READY, State.STARTING, State.STOPPING, State.STOPPED, State.FAILED}
        ),
        State.STARTING: frozenset({State.READY, State.STOPPING}),
        State.READY: frozenset({State.STARTING, State.DRAINING, State.STOPPED, State.FAILED}),
        State.DRAINING: frozenset({State.READY, State.STOPPING, State.STOPPED}),
        State.STOPPING: frozenset({State.STOPPED, State.READY, State.FAILED}),
        State.FAILED: frozenset({State.ADOPTING, State.STARTING, State.STOPPING, State.STOPPED}),
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


# Facts.


@dataclass(frozen=True, slots=True)
class Arrived(Generic[L]):
    """A request wants the service; `cause` says which, for people."""

    lease: L
    cause: str = "a request"


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
    """Somebody wants the service up without a lease; an operator's word ends a back-off.

    `cause` says who, for people.
    """

    by_operator: bool = False
    cause: str = "a visitor"


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
class Disowned:
    """Who answers where the service should is not what was found running."""

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
    """The service was seen not running as a whole.

    `exit` is how one of its parts ended by itself, if one did; `remains` says that others run on.
    """

    exit: Exit | None = None
    remains: bool = False


@dataclass(frozen=True, slots=True)
class FoundFailing:
    """The service's own healthcheck says that it has failed; it may yet recover."""


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
    | Disowned
    | Stopped
    | StopFailed
    | StopUnheard
    | FoundRunning
    | FoundStopped
    | FoundFailing
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
class Explain:
    """Tell what a start that goes on has come to: requests have waited for it in vain."""

    reason: errors.OperationError


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
    """The state changed; for logs and metrics, with the reason in a few words if there is one."""

    old: State
    new: State
    because: str = field(default="", compare=False)


Effect: TypeAlias = (
    StartBackend | StopBackend | Adopt | Explain | Abandon | Admit[L] | Refuse[L] | Cut[L] | Moved
)
