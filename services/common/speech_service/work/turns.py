"""Turns: how many transcriptions run at once, how many may wait, and in which order.

First come, first served. A turn is given back by whoever ends the work, not by whoever waits for
its result: a client that leaves does not free a worker that is still decoding.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..contract.errors import QueueFull


class Turn:
    """One place among the running; `release` may be called more than once."""

    def __init__(self, ended: Callable[[float], None]) -> None:
        self._ended: Callable[[float], None] | None = ended
        self._since = time.monotonic()

    def release(self) -> None:
        """Give the place to the next in the queue; only from the event loop."""
        ended, self._ended = self._ended, None
        if ended:
            ended(time.monotonic() - self._since)


class Turns:
    """A bounded queue in front of a fixed number of workers.

    Args:
        workers: transcriptions that run at the same time; at least 1.
        max_queued: how many may wait; 0 refuses whatever cannot run at once.
    """

    def __init__(self, workers: int, max_queued: int) -> None:
        self.workers = workers
        self.max_queued = max_queued
        self.running = 0
        self.waiting = 0
        self._free = asyncio.Semaphore(workers)
        self._usual_seconds = 5.0

    def check(self) -> None:
        """Raise `QueueFull` if a request that came now would be refused.

        Asked before an upload is read, so that a full server refuses at the price of a header.
        """
        if self._free.locked() and self.waiting >= self.max_queued:
            rounds = (self.waiting + self.running) / self.workers
            raise QueueFull(
                f"{self.waiting} requests are waiting already; try again later",
                retry_after=min(rounds * self._usual_seconds, 600.0),
            )

    async def take(self) -> Turn:
        """Wait for a place.

        Raises:
            QueueFull: too many are waiting.
        Cancellation: leaves the queue.
        """
        self.check()
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        return Turn(self._ended)

    def _ended(self, seconds: float) -> None:
        self.running -= 1
        self._usual_seconds += 0.2 * (seconds - self._usual_seconds)
        self._free.release()
