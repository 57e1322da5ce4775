"""Those who watch a backend that itself notices whatever changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from autostart_proxy.backends import Observation


class Watchers:
    """Has a backend looked at again for all who watch it."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()

    def tell(self) -> None:
        """Something has changed."""
        for watcher in self._waiting:
            watcher.set()

    async def watch(
        self, observe: Callable[[], Awaitable[Observation]]
    ) -> AsyncIterator[Observation]:
        """Yield an observation now and after every change; see `Backend.watch`."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            while True:
                changed.clear()
                yield await observe()
                await changed.wait()
        finally:
            self._waiting.discard(changed)
