from __future__ import annotations

import asyncio

from autostart_proxy.backends import Observation
from autostart_proxy.backends.watchers import Watchers


async def test_all_watchers_see_what_there_is_and_then_each_change() -> None:
    watchers, seen = Watchers(), Observation(running=False)

    async def observe() -> Observation:
        return seen

    watching = [watchers.watch(observe) for _ in range(2)]
    assert [await anext(each) for each in watching] == [seen, seen]
    waiting = [asyncio.ensure_future(anext(each)) for each in watching]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    seen = Observation(running=True)
    watchers.tell()
    assert await asyncio.gather(*waiting) == [seen, seen]


async def test_a_change_while_somebody_looks_is_looked_at_again() -> None:
    watchers, count = Watchers(), 0

    async def observe() -> Observation:
        nonlocal count
        count += 1
        if count == 1:
            watchers.tell()
        return Observation(running=count > 1)

    watching = watchers.watch(observe)
    assert not (await anext(watching)).running
    assert (await anext(watching)).running
