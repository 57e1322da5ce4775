"""A client that leaves is noticed while somebody works for it."""

from __future__ import annotations

import asyncio

import pytest
from speech_service.http.disconnect import ClientLeft, disconnected, unless_client_leaves
from starlette.requests import Request
from starlette.types import Message

MS = 0.001


class Client:
    """Whoever waits for an answer; `leave` makes it go."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.request = Request({"type": "http"}, self.receive)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_what_is_done_in_time_is_returned() -> None:
    async def work() -> str:
        await asyncio.sleep(1 * MS)
        return "done"

    assert await unless_client_leaves(Client().request, work()) == "done"


async def test_the_work_ends_when_its_client_leaves() -> None:
    client, ended = Client(), asyncio.Event()

    async def work() -> None:
        client.left.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(ClientLeft):
        await unless_client_leaves(client.request, work())
    assert ended.is_set()


async def test_what_was_done_when_it_left_is_not_thrown_away() -> None:
    client = Client()

    async def work() -> str:
        client.left.set()
        return "done"

    assert await unless_client_leaves(client.request, work()) == "done"


async def test_a_failure_comes_out_as_it_is() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await unless_client_leaves(Client().request, work())


async def test_the_rest_of_a_body_is_no_departure() -> None:
    messages: list[Message] = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    await disconnected(receive)
    assert messages == []
