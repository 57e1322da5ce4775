"""Whose containers are looked at and touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.backends import Observation
from autostart_proxy.errors import Misconfigured
from tests.backends import programs
from tests.backends.contract import get, ignore, refusal_of, until, watching
from tests.backends.programs import SLEEPS
from tests.backends.stack import Stack, Start, program, published
from tests.ports import free_port

pytestmark = pytest.mark.docker

SERVE: dict[str, Any] = program(programs.gentle())


@pytest.fixture
def other(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """Another folder whose project has the same name."""
    made = Stack(tmp_path / "other", stack.name)
    yield made


class TestStranger:
    async def test_a_folder_of_the_same_name_is_told_with_both_paths_and_left_alone(
        self, stack: Stack, other: Stack, service: Start, port: int
    ) -> None:
        other.write(app=SERVE | published(free_port()))
        await other.compose("up", "-d")
        theirs = await other.inspect("app", ".Id")
        stack.write(app=SERVE | published(port))
        backend = service()
        assert await backend.observe() == Observation(running=False)
        for _ in range(2):
            reason = await refusal_of(backend)
            assert isinstance(reason, Misconfigured)
            assert str(stack.folder) in reason.detail and str(other.folder) in reason.detail
            await backend.stop(1)
        assert await other.inspect("app", ".Id") == theirs
        assert await other.status("app") == "running"

    async def test_one_that_sleeps_is_not_replaced_either(
        self, stack: Stack, other: Stack, service: Start, port: int
    ) -> None:
        other.write(app=SERVE | published(free_port()))
        await other.compose("create")
        theirs = await other.inspect("app", ".Id")
        stack.write(app=SERVE | published(port))
        assert isinstance(await refusal_of(service()), Misconfigured)
        assert await other.inspect("app", ".Id") == theirs

    async def test_other_services_of_the_same_name_are_no_trouble(
        self, stack: Stack, other: Stack, service: Start, port: int
    ) -> None:
        other.write(elsewhere=program(SLEEPS))
        await other.compose("up", "-d")
        stack.write(app=SERVE | published(port))
        backend = service()
        assert await get(await backend.start(ignore))
        await backend.stop(1)
        assert await other.status("elsewhere") == "running"

    async def test_two_services_of_a_fleet_tell_of_each_other(
        self, stack: Stack, other: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=SERVE | published(port))
        second = free_port()
        other.write(app=SERVE | published(second))
        one, two = service(), service(compose_dir=other.folder, proxy_port=second)
        life = await get(await one.start(ignore))
        reason = await refusal_of(two)
        assert str(stack.folder) in reason.detail and str(other.folder) in reason.detail
        await two.stop(1)
        assert await get(await one.start(ignore)) == life


class TestOwn:
    async def test_a_link_to_the_folder_is_the_folder(
        self, stack: Stack, service: Start, port: int, tmp_path: Path
    ) -> None:
        (tmp_path / "link").mkdir()
        link = tmp_path / "link" / stack.name
        link.symlink_to(stack.folder)
        stack.write(app=SERVE | published(port))
        await stack.compose("up", "-d")
        backend = service(compose_dir=link)
        assert (await backend.observe()).running
        life = await stack.inspect("app", ".State.StartedAt")
        await backend.start(ignore)
        assert await stack.inspect("app", ".State.StartedAt") == life

    async def test_a_folder_that_was_moved_keeps_its_containers(
        self, stack: Stack, service: Start, port: int, tmp_path: Path
    ) -> None:
        stack.write(app=SERVE | published(port))
        await stack.compose("create")
        (tmp_path / "new").mkdir()
        moved = stack.folder.rename(tmp_path / "new" / stack.name)
        backend = service(compose_dir=moved)
        assert await get(await backend.start(ignore))
        assert len(await stack_containers(stack, moved)) == 1
        await backend.stop(1)

    async def test_compose_may_have_been_run_from_elsewhere(
        self, stack: Stack, service: Start, port: int, tmp_path: Path
    ) -> None:
        stack.write(app=SERVE | published(port))
        file = str(stack.folder / "docker-compose.yml")
        await stack.compose(
            "-f", file, "--project-directory", str(tmp_path), "-p", stack.name, "up", "-d"
        )
        backend = service()
        assert (await backend.observe()).running
        await backend.stop(1)
        assert await stack.status("app") == "exited"


async def stack_containers(stack: Stack, folder: Path) -> list[str]:
    stack.folder = folder
    return await stack.containers()


class TestOtherName:
    async def test_what_runs_under_another_name_is_adopted_and_kept(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=SERVE | published(port))
        by_hand = f"{stack.name}-custom"
        await stack.compose("-p", by_hand, "up", "-d")
        try:
            backend = service()
            async with watching(backend) as seen:
                assert (await anext(seen)).running
                upstream = await backend.start(ignore)
                life = await get(upstream)
                await backend.verify()
                assert await backend.stop(1) == ()
                assert not (await until(backend, lambda seen: not seen.running)).remains
            assert await get(await service().start(ignore)) != life
            assert await stack.containers() == [], "no second one beside it"
            assert await stack.compose("-p", by_hand, "ps", "-q")
        finally:
            await stack.compose("-p", by_hand, "down", "-t", "0")
        assert await get(await service().start(ignore)), "then it has its own name"
        assert await stack.containers() == [f"{stack.name}-app-1"]

    async def test_a_change_is_applied_under_that_name(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=SERVE | published(port))
        by_hand = f"{stack.name}-custom"
        await stack.compose("-p", by_hand, "create")
        await stack.compose("-p", by_hand, "start")
        backend = service()
        try:
            await backend.stop(1)
            stack.write(app=SERVE | published(port) | {"environment": {"X_A": "2"}})
            await backend.start(ignore)
            assert await stack.containers() == []
            told = await stack.compose("-p", by_hand, "exec", "-T", "app", "printenv", "X_A")
            assert told == "2\n"
        finally:
            await stack.compose("-p", by_hand, "down", "-t", "0")

    async def test_another_instance_from_the_same_folder_is_left_alone(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=SERVE | published(free_port()))
        staging = f"{stack.name}-staging"
        await stack.compose("-p", staging, "up", "-d")
        stack.write(app=SERVE | published(port))
        try:
            backend = service()
            assert not (await backend.observe()).running
            assert await get(await backend.start(ignore))
            await backend.stop(1)
            assert await stack.compose("-p", staging, "ps", "-q", "--status", "running")
        finally:
            await stack.compose("-p", staging, "down", "-t", "0")
