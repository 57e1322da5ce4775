"""Turns: bounded, first come first served, and freed by the work itself."""

from __future__ import annotations

import asyncio

import pytest
from speech_service.contract.errors import QueueFull
from speech_service.work.turns import Turns


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_as_many_run_as_there_are_workers() -> None:
    turns = Turns(workers=2, max_queued=0)
    first, _ = await turns.take(), await turns.take()
    with pytest.raises(QueueFull) as refusal:
        await turns.take()
    assert refusal.value.retry_after >= 1
    first.release()
    await turns.take()
    assert turns.running == 2


async def test_those_who_wait_are_served_in_order() -> None:
    turns = Turns(workers=1, max_queued=3)
    holding = await turns.take()
    served: list[int] = []

    async def wait(number: int) -> None:
        turn = await turns.take()
        served.append(number)
        turn.release()

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(wait(number))
        await settled()
        assert turns.waiting == 3
        holding.release()
    assert served == [0, 1, 2]


async def test_whoever_stops_waiting_leaves_the_queue() -> None:
    turns = Turns(workers=1, max_queued=1)
    holding = await turns.take()
    waiting = asyncio.ensure_future(turns.take())
    await settled()
    waiting.cancel()
    await settled()
    assert turns.waiting == 0
    holding.release()
    (await turns.take()).release()
    assert turns.running == 0


async def test_a_turn_given_back_twice_counts_once() -> None:
    turns = Turns(workers=1, max_queued=0)
    turn = await turns.take()
    turn.release()
    turn.release()
    await turns.take()
    with pytest.raises(QueueFull):
        turns.check()
