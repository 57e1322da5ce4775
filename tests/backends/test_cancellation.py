"""Calls that cannot be taken back."""

from __future__ import annotations

import asyncio

import pytest

from autostart_proxy.backends.cancellation import to_the_end


async def test_a_call_gives_what_it_returns_or_raises() -> None:
    async def fine() -> int:
        return 3

    async def broken() -> None:
        raise ValueError("no")

    assert await to_the_end(fine()) == 3
    with pytest.raises(ValueError, match="no"):
        await to_the_end(broken())


@pytest.mark.parametrize("cancellations", [1, 3])
@pytest.mark.parametrize("breaks", [False, True])
async def test_a_cancellation_is_delivered_only_once_the_call_is_over(
    cancellations: int, breaks: bool
) -> None:
    may_end, over = asyncio.Event(), False

    async def call() -> None:
        nonlocal over
        await may_end.wait()
        over = True
        if breaks:
            raise ValueError("told to nobody")

    waiting = asyncio.ensure_future(to_the_end(call()))
    await asyncio.sleep(0)
    for _ in range(cancellations):
        waiting.cancel()
        await asyncio.sleep(0.01)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert over


async def test_what_a_cancellation_keeps_from_its_caller_is_taken_back_before_it_is_delivered() -> (
    None
):
    may_end, may_undo, undone = asyncio.Event(), asyncio.Event(), []

    async def call() -> str:
        await may_end.wait()
        return "a program"

    async def undo(what: str) -> None:
        await may_undo.wait()
        undone.append(what)

    waiting = asyncio.ensure_future(to_the_end(call(), undo))
    await asyncio.sleep(0)
    waiting.cancel()
    may_end.set()
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    may_undo.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert undone == ["a program"]
    assert await to_the_end(call(), undo) == "a program"
    assert undone == ["a program"], "what its caller has is the caller's"


async def test_a_call_that_is_cancelled_itself_is_over() -> None:
    calls: list[asyncio.Task[None] | None] = []

    async def call() -> None:
        calls.append(asyncio.current_task())
        await asyncio.Event().wait()

    waiting = asyncio.ensure_future(to_the_end(call()))
    await asyncio.sleep(0.01)
    [task] = calls
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
