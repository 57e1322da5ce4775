"""Calls that cannot be taken back once they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(
    call: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, None]] | None = None
) -> T:
    """Await a call; a cancellation is delivered only once the call is over.

    A daemon goes on with an order whoever still listens, so to leave early would let the next
    order cross it. The call itself must have a time limit. How it ends after a cancellation is
    not told: the caller has to look at the world again anyway.

    Args:
        undo: takes back what the call gave, where a cancellation keeps anybody from having it.
    """
    task = asyncio.get_running_loop().create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await over(task)
        given = not task.cancelled() and task.exception() is None  # seen: nobody warns about it
        if given and undo is not None:
            await over(asyncio.get_running_loop().create_task(undo(task.result())))
        raise


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Make calls at the same time; fail as the first of them that failed, once all are over."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    results = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


async def over(future: asyncio.Future[Any]) -> None:
    """Wait for the end of a task or future, however often the waiting is cancelled."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
