"""Models on their way here, so that waiting for the hub holds up nobody but who waits for it.

Rules: a model is fetched once, for all who wait for it, and for no longer than anybody does. A few
are fetched at a time; the others wait in the order in which they were wanted, and so many callers
may wait in all. A fetch takes so many seconds at most. It never runs in a thread of this process:
what waits for a silent hub cannot be interrupted there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..contract.engine import Reached
from ..contract.errors import ModelUnavailable, QueueFull

AT_ONCE = 2
"""Models that are fetched at the same time."""
_RETRY_SECONDS = 60.0


class _Fetch:
    """One model on its way."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.waiting = 0
        self.listeners: set[Reached] = set()

    def tell(self, done: int, total: int) -> None:
        for listener in self.listeners:
            listener(done, total)


class Fetches:
    """The models that are being fetched, by canonical name; all state belongs to the event loop.

    Args:
        fetch: see `Engine.fetch`; called once at a time per name.
        seconds: that a fetch may take, from when its turn has come.
        max_waiting: callers that may wait, over all names.
    """

    def __init__(
        self,
        fetch: Callable[[str, Reached], Coroutine[Any, Any, None]],
        seconds: float,
        max_waiting: int,
    ) -> None:
        self.waiting = 0
        self._fetch = fetch
        self._seconds = seconds
        self._max_waiting = max_waiting
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[str, _Fetch] = {}

    async def wait_for(self, model: str, progress: Reached = lambda done, total: None) -> None:
        """Return once a model is here.

        Raises:
            QueueFull: too many wait already.
            ModelUnavailable: it took too long; and whatever `fetch` raises.
        Cancellation: ends the fetch, unless somebody else waits for it.
        """
        if self.waiting >= self._max_waiting:
            raise QueueFull(
                f"{self.waiting} requests wait for models already; try again later, or let the "
                "operator raise MAX_QUEUED",
                _RETRY_SECONDS,
            )
        fetch = self._under_way.get(model) or self._begin(model)
        self.waiting += 1
        fetch.waiting += 1
        fetch.listeners.add(progress)
        try:
            await asyncio.shield(fetch.task)
        finally:
            self.waiting -= 1
            fetch.waiting -= 1
            fetch.listeners.discard(progress)
            if not fetch.waiting:
                self._end(model, fetch)

    async def close(self) -> None:
        """End all fetches; return once nothing is downloaded any more."""
        under_way = list(self._under_way.items())
        for model, fetch in under_way:
            self._end(model, fetch)
        await asyncio.gather(*(fetch.task for _, fetch in under_way), return_exceptions=True)

    def _begin(self, model: str) -> _Fetch:
        fetch = self._under_way[model] = _Fetch()
        fetch.task = asyncio.get_running_loop().create_task(self._run(model, fetch))
        return fetch

    def _end(self, model: str, fetch: _Fetch) -> None:
        """End a fetch; whoever wants the model from now on begins anew."""
        fetch.task.cancel()
        if self._under_way.get(model) is fetch:
            del self._under_way[model]

    async def _run(self, model: str, fetch: _Fetch) -> None:
        async with self._slots:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._fetch(model, fetch.tell)
            except TimeoutError as error:
                raise ModelUnavailable(
                    f"{model} did not arrive within {self._seconds:g} seconds: try again, which "
                    "goes on where this one ended, or let the operator raise MAX_FETCH_SECONDS",
                    "fetch_timeout",
                ) from error
