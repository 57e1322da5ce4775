"""Models in memory: loaded once for all, kept while used, given back after a time.

Rules: whoever wants a model that is being loaded waits for that load; a load that its clients gave
up goes on; a model is unloaded only while nobody uses it, `ttl` seconds after its last use; a load
that failed leaves nothing, so the next request tries again; a model that is worn out is loaded anew
for whoever comes next, while those that use it go on. All state belongs to the event loop;
loading and freeing happen in threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from ..contract.engine import WORKER_THREADS
from ..contract.errors import Conflict, NotFound
from ..contract.settings import NEVER
from ..process.memory import hand_back

M = TypeVar("M")
log = logging.getLogger(__name__)

LOADS_AT_ONCE = 8
"""Models that are loaded at the same time, in threads that nothing else needs."""


class Lease(Generic[M]):
    """One user's claim on a loaded model; `release` may be called more than once."""

    def __init__(self, model: M, released: Callable[[], None]) -> None:
        self.model = model
        self._released: Callable[[], None] | None = released

    def release(self) -> None:
        """End the claim; only from the event loop."""
        released, self._released = self._released, None
        if released:
            released()


class _Slot(Generic[M]):
    def __init__(self, loading: asyncio.Future[M]) -> None:
        self.loading = loading
        self.users = 0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def loaded(self) -> bool:
        done = self.loading.done() and not self.loading.cancelled()
        return done and self.loading.exception() is None


class ModelPool(Generic[M]):
    """The models of one process, by canonical name.

    Args:
        load: blocking; called in a thread, once at a time per name.
        ttl: seconds from the last use to unloading; 0 at once, -1 never.
        observe: told the name, the seconds and the success of each load.
        worn_out: whether a loaded model had rather not be used once more.
    """

    def __init__(
        self,
        load: Callable[[str], M],
        ttl: float,
        observe: Callable[[str, float, bool], None] = lambda name, seconds, ok: None,
        worn_out: Callable[[M], bool] = lambda model: False,
    ) -> None:
        self._load = load
        self._ttl = ttl
        self._observe = observe
        self._worn_out = worn_out
        self._slots: dict[str, _Slot[M]] = {}
        self._threads = _threads()

    @property
    def loaded(self) -> list[str]:
        """Names of the models in memory; what begins with a colon is no model."""
        names = [name for name, slot in self._slots.items() if slot.loaded]
        return [name for name in names if not name.startswith(":")]

    async def acquire(self, name: str) -> Lease[M]:
        """Claim a model, loading it if need be.

        Raises:
            whatever `load` raises.
        Cancellation: ends the claim; a load under way goes on.
        """
        self._loop = asyncio.get_running_loop()
        slot = self._usable(name) or self._start_loading(name)
        slot.users += 1
        if slot.timer:
            slot.timer.cancel()
            slot.timer = None
        try:
            model = await asyncio.shield(slot.loading)
        except BaseException:
            self._leave(name, slot)
            raise
        return Lease(model, lambda: self._leave(name, slot))

    @contextmanager
    def borrow(self, name: str) -> Iterator[M]:
        """Claim a model in a worker thread, whose own claim on another model has come first.

        Raises:
            whatever `load` raises.
        """
        lease = asyncio.run_coroutine_threadsafe(self.acquire(name), self._loop).result()
        try:
            yield lease.model
        finally:
            self._loop.call_soon_threadsafe(lease.release)

    async def unload(self, name: str) -> None:
        """Drop a model from memory and return when its memory is free.

        Raises:
            NotFound: it is not loaded.
            Conflict: it is in use.
        """
        slot = self._slots.get(name)
        if slot is None or not slot.loaded:
            raise NotFound(f"the model {name!r} is not loaded")
        if slot.users:
            raise Conflict(f"the model {name!r} is in use; try again when it is idle")
        await self._drop(name, slot)

    def close(self) -> None:
        """Let threads end that have nothing to load; whoever still needs a model gets another."""
        idle, self._threads = self._threads, _threads()
        idle.shutdown(wait=False)

    def _usable(self, name: str) -> _Slot[M] | None:
        """Return what there is of a model, and drop it if it is worn out."""
        slot = self._slots.get(name)
        if slot is None or not slot.loaded or not self._worn_out(slot.loading.result()):
            return slot
        if slot.users:
            del self._slots[name]
        else:
            self._drop(name, slot)
        return None

    def _start_loading(self, name: str) -> _Slot[M]:
        loop = asyncio.get_running_loop()
        slot = _Slot(loop.run_in_executor(self._threads, self._timed_load, name))
        self._slots[name] = slot
        slot.loading.add_done_callback(lambda loading: self._loaded(name, slot))
        return slot

    def _timed_load(self, name: str) -> M:
        started = time.monotonic()
        try:
            model = self._load(name)
        except Exception:
            self._observe(name, time.monotonic() - started, False)
            raise
        seconds = time.monotonic() - started
        log.info("model loaded", extra={"model": name, "seconds": round(seconds, 3)})
        self._observe(name, seconds, True)
        return model

    def _loaded(self, name: str, slot: _Slot[M]) -> None:
        if not slot.loaded:
            del self._slots[name]
        elif not slot.users:
            self._arm(name, slot)

    def _leave(self, name: str, slot: _Slot[M]) -> None:
        slot.users -= 1
        if not slot.users and slot.loaded:
            if self._slots.get(name) is slot:
                self._arm(name, slot)
            else:
                self._let_go(slot)

    def _arm(self, name: str, slot: _Slot[M]) -> None:
        """Start the clock of an idle model."""
        if self._ttl == NEVER:
            return
        loop = asyncio.get_running_loop()
        slot.timer = loop.call_later(self._ttl, self._drop, name, slot)

    def _drop(self, name: str, slot: _Slot[M]) -> asyncio.Future[None]:
        if slot.timer:
            slot.timer.cancel()
        del self._slots[name]
        log.info("model unloaded", extra={"model": name})
        return self._let_go(slot)

    def _let_go(self, slot: _Slot[M]) -> asyncio.Future[None]:
        # Handed over, so that the last reference dies in the thread: freeing takes a while too.
        held = [slot.loading]
        del slot.loading
        return asyncio.get_running_loop().run_in_executor(None, _free, held)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LOADS_AT_ONCE, WORKER_THREADS)


def _free(held: list[asyncio.Future[M]]) -> None:
    """Let go of a model and hand its memory back to the system."""
    held.clear()
    hand_back()
