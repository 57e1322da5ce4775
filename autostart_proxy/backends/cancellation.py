"""Calls that cannot be taken back once they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(call: Coroutine[Any, Any, T]) -> T:
    """Await a call; a cancellation is delivered only once the call is over.

    A daemon goes on with an order whoever still listens, so to leave early would let the next
    order cross it. The call itself must have a time limit. How it ends after a cancellation is
    not told: the caller has to look at the world again anyway.
    """
    task = asyncio.get_running_loop().create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen, so that nobody warns about it
        raise
