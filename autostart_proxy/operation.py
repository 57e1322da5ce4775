"""One operation at a time: what is begun next ends what is under way, and waits for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

Work = Callable[[], Coroutine[None, None, None]]


class Operation:
    """The place for one operation of a running event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, work: Work | None) -> None:
        """End what is under way, and begin this once that is over; None begins nothing."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(_after(self._task, work))

    async def end(self) -> None:
        """End what is under way, and return once it is over."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def _after(previous: asyncio.Task[None] | None, work: Work | None) -> None:
    if previous is not None and not previous.done():
        previous.cancel()
        superseded = False
        while not previous.done():
            try:
                await asyncio.wait([previous])
            except asyncio.CancelledError:
                superseded = True
        if superseded:
            raise asyncio.CancelledError
    if work is not None:
        await work()
