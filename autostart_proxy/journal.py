"""What has happened, as facts, and who is told of it.

- A fact is a plain value: nothing in it changes, and nobody can act on the proxy through it.
- Subscribers are called in the event loop, in the order of their subscription, with every fact at
  the moment it is recorded. They note and return; whoever has to wait for a stream or a reader
  does so elsewhere.
- A subscriber that fails costs a line in the log: neither the request nor the other subscribers
  notice, and the next fact is told it all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from autostart_proxy.errors import ProxyError

_log = logging.getLogger(__name__)


class RequestEnded(NamedTuple):
    """A request is over, served or refused; the one fact of which a busy proxy has thousands.

    `service` is its canonical host, `-` where none was found; `status` what the client got, 499 if
    it left before; `bytes_in` and `bytes_out` count the body from and to it. It was held for
    `held_seconds`, and took `total_seconds` from its first byte to its end. `client` is the address
    as the proxy believes it, `unix` on a unix socket. `error` is the tag of the proxy's own answer.

    `path`, without the query, `user_agent`, and `host`, told where no service was found, are what
    the client claims: they are bounded, and hold whatever it sent.
    """

    service: str
    method: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    held_seconds: float
    total_seconds: float
    request_id: str
    client: str
    user_agent: str
    error: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """A service gave no usable response to a request; `error` says which way."""

    service: str
    request_id: str
    error: ProxyError


@dataclass(frozen=True, slots=True)
class ServiceMoved:
    """A service's state changed.

    `because` is who woke it, where it starts; `start_seconds` what the start took, where one ended.
    """

    service: str
    old: str
    new: str
    because: str | None = None
    start_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceFailed:
    """A start or a stop did not do what it was to do, or the service ended by itself."""

    service: str
    error: ProxyError


@dataclass(frozen=True, slots=True)
class StartMeasured:
    """What a start that succeeded took, stage by stage, in seconds.

    `preparing` ends with the first container's start, `starting` with the last's and with all that
    `depends_on` waits for, `answering` with the first answer to the readiness probe.
    """

    service: str
    preparing: float
    starting: float
    answering: float


@dataclass(frozen=True, slots=True)
class PartKilled:
    """A part did not end within its grace period; `end` describes how it ended then."""

    service: str
    end: str


@dataclass(frozen=True, slots=True)
class SilenceExplained:
    """A service never answered; these are the last lines it wrote, oldest first."""

    service: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigApplied:
    """A configuration is in force, with this many services."""

    services: int


RareFact: TypeAlias = (
    UpstreamFailed
    | ServiceMoved
    | ServiceFailed
    | StartMeasured
    | PartKilled
    | SilenceExplained
    | ConfigApplied
)
Fact: TypeAlias = RequestEnded | RareFact

Subscriber = Callable[[Fact], None]


class Journal:
    """Hands facts to those who subscribed."""

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell a subscriber every fact from now on."""
        self._subscribers += (subscriber,)

    def record(self, fact: Fact) -> None:
        """Tell everybody."""
        for subscriber in self._subscribers:
            try:
                subscriber(fact)
            except Exception:
                _log.exception("subscriber failed", extra={"fact": type(fact).__name__})
