"""A backend made of nothing, for tests of the shell around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from autostart_proxy import errors, logs
from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.journal import Journal
from autostart_proxy.service import Service


class FakeBackend:
    """Runs nothing; a test opens its gates and tells what it shall see.

    Attributes:
        calls: what was asked, in order: `start`, `stop`, and their ends `started`, `stopped`.
        may_start, may_stop: an operation waits for its gate.
        fails: what the next operation raises.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.calls: list[str] = []
        self.may_start = asyncio.Event()
        self.may_stop = asyncio.Event()
        self.may_start.set()
        self.may_stop.set()
        self.fails: Exception | None = None
        self.closed = False
        self.impostor: errors.PortInUse | None = None
        self.killed: tuple[Exit, ...] = ()
        self.grace: float | None = None
        self._seen: asyncio.Queue[Observation | Exception] = asyncio.Queue()
        self._at_work = 0

    def shows(self, seen: Observation | Exception) -> None:
        """Let `watch` yield (or raise) this next."""
        self._seen.put_nowait(seen)

    async def start(self, launched: Callable[[], None]) -> Upstream:
        await self._work("start", self.may_start, launched)
        return self.upstream

    async def verify(self) -> None:
        if self.impostor is not None:
            raise errors.BackendRefused(self.impostor)

    async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
        self.grace = grace_seconds
        await self._work("stop", self.may_stop, lambda: None)
        return self.killed

    async def _work(self, name: str, gate: asyncio.Event, launched: Callable[[], None]) -> None:
        assert self._at_work == 0, "never two operations at once"
        self._at_work += 1
        self.calls.append(name)
        try:
            launched()
            await gate.wait()
            self.calls.append("started" if name == "start" else "stopped")
            if self.fails is not None:
                failure, self.fails = self.fails, None
                raise failure
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # a real daemon takes its time to let go
            self.calls.append(f"{name} ended")
            raise
        finally:
            self._at_work -= 1

    async def observe(self) -> Observation:
        return Observation(running=False)

    async def watch(self) -> AsyncIterator[Observation]:
        while True:
            seen = await self._seen.get()
            if isinstance(seen, Exception):
                raise seen
            yield seen

    async def log_tail(self) -> tuple[str, ...]:
        return ("the last line",)

    async def close(self) -> None:
        self.closed = True


class FakeLease:
    """A request that only notes what it is told."""

    cause = "a request"

    def __init__(self) -> None:
        self.address: tuple[str, int] | None = None
        self.error: errors.ProxyError | None = None
        self.was_cut = False
        self.answered = asyncio.Event()

    def admitted(self, address: tuple[str, int]) -> None:
        self.address = address
        self.answered.set()

    def refused(self, error: errors.ProxyError) -> None:
        self.error = error
        self.answered.set()

    def cut(self) -> None:
        self.was_cut = True

    def claims(self, service: Service) -> None:
        """Ask for the service, and note what it says at once as if it had been said later."""
        answer = service.claim(self)
        if isinstance(answer, tuple):
            self.admitted(answer)
        elif answer is not None:
            self.refused(answer)


def logging_journal() -> Journal:
    """A journal that the log tells, as in the running proxy."""
    journal = Journal()
    journal.subscribe(logs.tell)
    return journal


DIED = Observation(running=False, exit=Exit("web", 3, log_tail=("Traceback", "boom")))
RUNNING = Observation(running=True, healthy=True)
STOPPED = Observation(running=False)
