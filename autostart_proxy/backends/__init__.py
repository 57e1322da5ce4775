"""What a service is made of: something that can be started, stopped and watched.

A backend knows how to do it and nothing else: when to start or stop is decided in `lifecycle`,
and a backend never acts on its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a started service listens.

    `has_healthcheck` is true where the backend itself reports health (Docker's HEALTHCHECK).
    """

    host: str
    port: int
    has_healthcheck: bool = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, to connect to."""
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class Exit:
    """How a part of a service ended.

    `code` is the exit status as Docker gives it (128 + signal number for a signal), `log_tail`
    the last lines it wrote, oldest first; at most 20 lines of at most 500 characters.
    """

    part: str
    code: int
    out_of_memory: bool = False
    log_tail: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For the log: what ended and how, then its last lines."""
        killed = ", out of memory" if self.out_of_memory else ""
        tail = "".join(f"\n  {line}" for line in self.log_tail)
        return f"{self.part} exited with {self.code}{killed}{tail}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a service looks like from outside at one moment.

    `running` is true only if every part that must run does, and none is paused. `healthy` is
    None where the backend has no healthcheck; `failing` is true where that has failed, rather than
    not succeeded yet. `exit` says how a part ended by itself since the last start, if one did: a
    one-shot dependency that ended with 0 is not an exit. `remains` is true where the service does
    not run as a whole and yet something of it does. `misconfigured` says why it could not be
    started, where that is known without a try; else it is empty.
    """

    running: bool
    healthy: bool | None = None
    exit: Exit | None = None
    failing: bool = False
    remains: bool = False
    misconfigured: str = ""


OWN_GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL where neither the configuration nor the part says otherwise."""


class Backend(Protocol):
    """One service's unit of starting and stopping.

    Start and stop are idempotent and never run at the same time: the caller sees to that. A
    cancelled call returns only when nothing is pending at the daemon any more.
    """

    async def start(self, launched: Callable[[], None]) -> Upstream:
        """Start all parts in order, or what is missing of them; heal paused ones.

        Returns when every part has been started and what the order waits for (dependencies that
        must be healthy or complete) has happened; whether the service answers is found out by
        `readiness`.

        Args:
            launched: called once, when preparation (image pull or build) is over and the first
                container is about to start, or nothing has to be started: from here
                `startTimeout` counts, and an exit is one of this start's.
        Raises:
            BackendUnreachable: the daemon did not answer; safe to retry.
            BackendRefused: it answered no, or a part ended; carries the reason for clients.
        """
        ...

    async def verify(self) -> None:
        """Prove that who answers at the upstream is this service; called once it answers.

        Raises:
            BackendRefused: it is somebody else; carries `PortInUse`, which names whom, if the
                system tells.
        """
        ...

    async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
        """Stop all parts in reverse order, also where only some still run.

        Args:
            grace_seconds: time between SIGTERM and SIGKILL; at least 0. None: what each part asks
                for itself, or `OWN_GRACE_SECONDS`.
        Returns:
            The parts that had to be killed.
        Raises:
            BackendUnreachable: the daemon could not be told anything: what ran still runs.
            BackendRefused: it answered no, or not at all once it was told to stop a part.
        """
        ...

    async def observe(self) -> Observation:
        """Look once.

        Raises:
            BackendUnreachable: the daemon did not answer.
        """
        ...

    def watch(self) -> AsyncIterator[Observation]:
        """Yield an observation now, after every change and after every `start`, until `close`.

        Survives a daemon that goes away: backs off, subscribes again, looks again. Yields an
        `Exit` at the latest one second after it happened.
        """
        ...

    async def log_tail(self) -> tuple[str, ...]:
        """The last lines the service's parts wrote, as `Exit.log_tail`; empty if unknown.

        Never raises for a daemon that does not answer: this is only for explaining a failure.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and watchers; the service keeps running (Compose) or is left to
        the caller to have stopped before (process)."""
        ...
