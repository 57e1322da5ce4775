"""What every backend must do, whatever it is made of.

A backend's own test module inherits from `Contract` and says how to make a service out of a
program (`programs.py`).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import aiohttp
import pytest

from autostart_proxy.backends import Backend, Exit, Observation, Upstream
from autostart_proxy.errors import BackendRefused, ContainerExited, StartError
from tests.backends import programs

PATIENCE_SECONDS = 60.0
"""For what has no limit of its own; a busy machine must not fail the suite."""

NOTICED_SECONDS = 15.0
"""How soon a change by hand must be noticed."""


def ignore() -> None:
    """For a `launched` that does not matter."""


async def eventually(
    condition: Callable[[], bool], within_seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)


async def get(upstream: Upstream, path: str = "/") -> str:
    """The service's answer, as soon as there is one."""
    url = f"http://{upstream.host}:{upstream.port}{path}"
    async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    return await answer.text()
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


async def order_exit(upstream: Upstream, code: int) -> None:
    """Have the program end by itself."""
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(f"http://{upstream.host}:{upstream.port}/exit/{code}")
        except aiohttp.ClientError:
            return


async def until(
    backend: Backend,
    wanted: Callable[[Observation], bool],
    within_seconds: float = PATIENCE_SECONDS,
) -> Observation:
    """The first observation that is wanted."""
    async with asyncio.timeout(within_seconds), watching(backend) as seen:
        async for observation in seen:
            if wanted(observation):
                return observation
    raise AssertionError("watch() ended")


def watching(backend: Backend) -> aclosing[AsyncGenerator[Observation, None]]:
    """Watch, and end the watch at once where the block ends."""
    return aclosing(cast(AsyncGenerator[Observation, None], backend.watch()))


async def exit_of(backend: Backend) -> Exit:
    """Start a service that dies, and return how it did, wherever the backend told it first."""
    dying = asyncio.ensure_future(until(backend, lambda seen: seen.exit is not None))
    await asyncio.sleep(0)
    try:
        await backend.start(ignore)
    except BackendRefused as refusal:
        dying.cancel()
        assert isinstance(refusal.reason, ContainerExited)
        observation = await backend.observe()
    else:
        observation = await dying
    assert observation.exit is not None
    assert not observation.running
    return observation.exit


async def refusal_of(backend: Backend) -> StartError:
    """Why a start is refused."""
    with pytest.raises(BackendRefused) as refusal:
        await backend.start(ignore)
    assert isinstance(refusal.value.reason, StartError)
    return refusal.value.reason


class Contract:
    """The suite, on two fixtures.

    `make` turns a program into a backend that is not started yet and listens on `port`.
    """

    async def test_start_returns_where_the_service_listens(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        upstream = await backend.start(ignore)
        assert await get(upstream)
        assert await backend.observe() == Observation(running=True)

    async def test_launched_is_told_once_before_anything_runs(
        self, make: Callable[[str], Backend], port: int
    ) -> None:
        backend = make(programs.gentle())
        was_up: list[bool] = []

        def launched() -> None:
            with socket.socket() as probe:
                was_up.append(probe.connect_ex(("127.0.0.1", port)) == 0)

        await backend.start(launched)
        assert was_up == [False]

    async def test_to_start_what_runs_changes_nothing(self, make: Callable[[str], Backend]) -> None:
        backend = make(programs.gentle())
        upstream = await backend.start(ignore)
        life = await get(upstream)
        assert await backend.start(ignore) == upstream
        assert await get(upstream) == life

    async def test_every_start_is_followed_by_an_observation(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        async with watching(backend) as seen:
            assert (await anext(seen)).running
            await backend.start(ignore)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert (await anext(seen)).running

    async def test_a_stopped_service_is_seen_stopped_and_not_as_crashed(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        await backend.stop(1)
        assert await backend.observe() == Observation(running=False)

    async def test_to_stop_what_is_stopped_does_nothing(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await backend.stop(1)
        await backend.start(ignore)
        await backend.stop(1)
        await backend.stop(1)
        assert not (await backend.observe()).running

    async def test_a_stopped_service_starts_again(self, make: Callable[[str], Backend]) -> None:
        backend = make(programs.gentle())
        first = await get(await backend.start(ignore))
        await backend.stop(1)
        assert await get(await backend.start(ignore)) != first

    async def test_a_program_that_ignores_sigterm_is_killed_after_its_grace_period(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.stubborn())
        await get(await backend.start(ignore))
        began = time.monotonic()
        killed = await backend.stop(1)
        assert 0.9 < time.monotonic() - began < 4
        assert [each.code for each in killed] == [137]
        assert await backend.observe() == Observation(running=False)

    async def test_a_program_that_ends_in_time_is_not_told_as_killed(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await get(await backend.start(ignore))
        assert await backend.stop(5) == ()
        assert await backend.stop(None) == ()

    async def test_a_service_that_answers_is_itself(self, make: Callable[[str], Backend]) -> None:
        backend = make(programs.gentle())
        await get(await backend.start(ignore))
        for _ in range(2):
            await backend.verify()

    @pytest.mark.parametrize("code", [0, 3])
    async def test_a_program_that_ends_at_once_is_told_with_its_code_and_last_lines(
        self, make: Callable[[str], Backend], code: int
    ) -> None:
        ended = await exit_of(make(programs.exits(code)))
        assert ended.code == code
        assert ended.part
        assert not ended.out_of_memory
        assert ended.log_tail == ("cannot find my settings",)

    async def test_a_death_after_the_start_is_told_within_a_second(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        upstream = await backend.start(ignore)
        await get(upstream)
        dying = asyncio.ensure_future(until(backend, lambda seen: seen.exit is not None))
        await asyncio.sleep(0.1)
        await order_exit(upstream, 7)
        async with asyncio.timeout(1):
            seen = await dying
        assert not seen.running
        assert seen.exit is not None
        assert seen.exit.code == 7
        assert seen.exit.log_tail[-1] == "last words"

    async def test_a_death_is_forgotten_by_the_next_start(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        upstream = await backend.start(ignore)
        await get(upstream)
        await order_exit(upstream, 7)
        await until(backend, lambda seen: seen.exit is not None)
        assert await get(await backend.start(ignore))
        assert await backend.observe() == Observation(running=True)

    async def test_watching_begins_with_now_and_goes_on_with_every_change(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        async with asyncio.timeout(PATIENCE_SECONDS), watching(backend) as seen:
            assert await anext(seen) == Observation(running=False)
            await backend.start(ignore)
            while not (await anext(seen)).running:
                pass
            await backend.stop(1)
            while (await anext(seen)).running:
                pass

    async def test_two_watchers_see_the_same(self, make: Callable[[str], Backend]) -> None:
        backend = make(programs.gentle())
        watchers = [asyncio.ensure_future(until(backend, lambda s: s.running)) for _ in range(2)]
        await backend.start(ignore)
        assert [seen.running for seen in await asyncio.gather(*watchers)] == [True, True]

    async def test_a_cancelled_start_leaves_nothing_that_a_stop_would_miss(
        self, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        for delay_seconds in (0.0, 0.01, 0.1):
            starting = asyncio.ensure_future(backend.start(ignore))
            await asyncio.sleep(delay_seconds)
            starting.cancel()
            await asyncio.wait([starting])
            await backend.stop(1)
            assert await backend.observe() == Observation(running=False)
        assert await get(await backend.start(ignore))

    async def test_the_last_lines_can_be_asked_for(self, make: Callable[[str], Backend]) -> None:
        backend = make(programs.gentle())
        await get(await backend.start(ignore))
        assert "listening" in await backend.log_tail()
