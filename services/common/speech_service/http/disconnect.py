"""Noticing that a client has closed its connection before it was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive

T = TypeVar("T")


class ClientLeft(Exception):
    """The client closed its connection before it was answered."""


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it as soon as the client is gone.

    Args:
        request: its body must have been read.
    Raises:
        ClientLeft: nobody is left to answer.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Return once the client has closed its connection; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
