"""Who is let on in which turn of the event loop."""

from __future__ import annotations

import asyncio

import pytest

from autostart_proxy.relay.turns import BYTES_PER_TURN, RESUMED_PER_TURN, Turns


async def turn() -> None:
    """Let one turn of the event loop pass."""
    await asyncio.sleep(0)


async def test_what_is_read_in_one_turn_is_counted_and_forgotten_in_the_next() -> None:
    turns = Turns()
    for _ in range(3):
        assert turns.take(BYTES_PER_TURN - 1)
        assert not turns.take(1)
        assert not turns.take(1)
        await turn()


async def test_a_few_go_on_in_each_turn_in_the_order_in_which_they_left_off() -> None:
    turns, done, at = Turns(), [], []
    count = 3 * RESUMED_PER_TURN - 1
    for number in range(count):
        turns.wait(lambda number=number: done.append(number))  # type: ignore[misc]
    assert "waiting" in repr(turns)
    while len(done) < count:
        await turn()
        at.append(len(done))
    assert at == [RESUMED_PER_TURN, 2 * RESUMED_PER_TURN, count]
    assert done == list(range(count))


async def test_who_leaves_off_again_waits_behind_the_others() -> None:
    turns, order = Turns(), []

    def go_on(name: str) -> None:
        order.append(name)
        if len(order) < 6:
            turns.wait(lambda: go_on(name))

    for name in "ab":
        turns.wait(lambda name=name: go_on(name))  # type: ignore[misc]
    for _ in range(3):
        await turn()
    assert order == list("ababab")


async def test_a_defect_in_one_connection_strands_nobody() -> None:
    turns, done, told = Turns(), [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def breaks() -> None:
        raise RuntimeError("a defect")

    turns.wait(breaks)
    turns.wait(lambda: done.append(1))
    await turn()
    await turn()
    assert done == [1]
    assert [str(each["exception"]) for each in told] == ["a defect"]


@pytest.mark.parametrize("size", [1, BYTES_PER_TURN])
async def test_reading_does_not_keep_the_loop_busy(size: int) -> None:
    turns = Turns()
    turns.take(size)
    await turn()
    assert not turns._begun
