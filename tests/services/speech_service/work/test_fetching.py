"""Models on their way: one fetch for all who wait, a few at a time, and none that nobody wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from speech_service.contract.engine import Reached
from speech_service.contract.errors import ModelNotFound, ModelUnavailable, QueueFull
from speech_service.work.fetching import AT_ONCE, Fetches

MS = 0.001


class Hub:
    """Gives a model once it is told to; knows what is asked of it and what was given up."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.open = asyncio.Event()
        self.broken: Exception | None = None

    async def fetch(self, model: str, progress: Reached) -> None:
        self.asked.append(model)
        try:
            progress(1, 2)
            await self.open.wait()
            if self.broken:
                raise self.broken
            progress(2, 2)
        except asyncio.CancelledError:
            self.ended.append(model)
            raise


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(2 * MS)
    raise AssertionError("it did not happen")


async def test_all_who_want_a_model_wait_for_the_same_fetch_and_hear_of_it() -> None:
    hub = Hub()
    fetches = Fetches(hub.fetch, 60.0, 16)
    first: list[int] = []
    later: list[int] = []
    waiting = [asyncio.ensure_future(fetches.wait_for("m", lambda done, total: first.append(done)))]
    await until(lambda: hub.asked == ["m"])
    waiting.append(
        asyncio.ensure_future(fetches.wait_for("m", lambda done, total: later.append(done)))
    )
    await until(lambda: fetches.waiting == 2)
    hub.open.set()
    await asyncio.gather(*waiting)
    assert (hub.asked, first, later) == (["m"], [1, 2], [2])
    await fetches.wait_for("m")
    assert hub.asked == ["m", "m"], "what it did before is forgotten"


async def test_a_fetch_goes_on_for_whoever_still_waits_and_ends_with_the_last() -> None:
    hub = Hub()
    fetches = Fetches(hub.fetch, 60.0, 16)
    one, other = (asyncio.ensure_future(fetches.wait_for("m")) for _ in range(2))
    await until(lambda: hub.asked == ["m"] and fetches.waiting == 2)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert hub.ended == []
    other.cancel()
    await until(lambda: hub.ended == ["m"])
    anew = asyncio.ensure_future(fetches.wait_for("m"))
    await until(lambda: hub.asked == ["m", "m"])
    hub.open.set()
    await anew
    assert fetches.waiting == 0


async def test_a_few_are_fetched_at_a_time_in_the_order_in_which_they_were_wanted() -> None:
    hub = Hub()
    fetches = Fetches(hub.fetch, 60.0, 16)
    names = [f"m{number}" for number in range(AT_ONCE + 2)]
    tasks = [asyncio.ensure_future(fetches.wait_for(name)) for name in names]
    await until(lambda: fetches.waiting == len(names))
    await asyncio.sleep(20 * MS)
    assert hub.asked == names[:AT_ONCE]
    # Who leaves the queue is never fetched.
    tasks[AT_ONCE].cancel()
    tasks[0].cancel()
    await until(lambda: hub.asked == [*names[:AT_ONCE], names[-1]])
    await fetches.close()
    assert sorted(hub.ended) == sorted(hub.asked)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    hub = Hub()
    fetches = Fetches(hub.fetch, 60.0, 2)
    waiting = [asyncio.ensure_future(fetches.wait_for("m")) for _ in range(2)]
    await until(lambda: fetches.waiting == 2)
    with pytest.raises(QueueFull, match="MAX_QUEUED"):
        await fetches.wait_for("other")
    hub.open.set()
    await asyncio.gather(*waiting)
    await fetches.wait_for("other")


async def test_a_fetch_has_a_total_time() -> None:
    hub = Hub()
    fetches = Fetches(hub.fetch, 20 * MS, 16)
    with pytest.raises(ModelUnavailable, match="MAX_FETCH_SECONDS") as late:
        await fetches.wait_for("m")
    assert late.value.code == "fetch_timeout"
    assert hub.ended == ["m"]


async def test_all_who_wait_hear_what_went_wrong_and_the_next_one_tries_again() -> None:
    hub = Hub()
    hub.broken = ModelNotFound("no such model")
    fetches = Fetches(hub.fetch, 60.0, 16)
    waiting = [asyncio.ensure_future(fetches.wait_for("m")) for _ in range(2)]
    await until(lambda: fetches.waiting == 2)
    hub.open.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [hub.broken] * 2
    hub.broken = None
    await fetches.wait_for("m")
