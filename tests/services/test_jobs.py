"""Turns: bounded, first come first served, and freed by the work itself."""

from __future__ import annotations

import asyncio

import pytest
from speech_service.errors import QueueFull
from speech_service.jobs import Jobs


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_as_many_run_as_there_are_workers() -> None:
    jobs = Jobs(workers=2, max_queued=0)
    first, _ = await jobs.turn(), await jobs.turn()
    with pytest.raises(QueueFull) as refusal:
        await jobs.turn()
    assert refusal.value.retry_after >= 1
    first.release()
    await jobs.turn()
    assert jobs.running == 2


async def test_those_who_wait_are_served_in_order() -> None:
    jobs = Jobs(workers=1, max_queued=3)
    holding = await jobs.turn()
    served: list[int] = []

    async def wait(number: int) -> None:
        turn = await jobs.turn()
        served.append(number)
        turn.release()

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(wait(number))
        await settled()
        assert jobs.waiting == 3
        holding.release()
    assert served == [0, 1, 2]


async def test_whoever_stops_waiting_leaves_the_queue() -> None:
    jobs = Jobs(workers=1, max_queued=1)
    holding = await jobs.turn()
    waiting = asyncio.ensure_future(jobs.turn())
    await settled()
    waiting.cancel()
    await settled()
    assert jobs.waiting == 0
    holding.release()
    (await jobs.turn()).release()
    assert jobs.running == 0


async def test_a_turn_given_back_twice_counts_once() -> None:
    jobs = Jobs(workers=1, max_queued=0)
    turn = await jobs.turn()
    turn.release()
    turn.release()
    await jobs.turn()
    with pytest.raises(QueueFull):
        jobs.check()
