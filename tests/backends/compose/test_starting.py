"""Starts while somebody else works on the same containers, and what they find afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from autostart_proxy.backends import Backend, Observation
from autostart_proxy.backends.compose.backend import ComposeBackend
from autostart_proxy.errors import BackendRefused, StartFailed
from tests.backends import programs
from tests.backends.contract import get, ignore, refusal_of, until, watching
from tests.backends.programs import SLEEPS
from tests.backends.stack import IMAGE, Stack, Start, after, program, published

pytestmark = pytest.mark.docker

GENTLE: dict[str, Any] = program(programs.gentle())
STUBBORN: dict[str, Any] = program(programs.stubborn())


def networked(service: dict[str, Any]) -> dict[str, Any]:
    """A service in the project's own network, which comes and goes with it."""
    return {key: value for key, value in service.items() if key != "network_mode"}


class Traffic:
    """Clients that never stop asking, and start the service wherever nobody answers.

    Attributes:
        served: how many requests have been answered.
        refused: why starts failed.
    """

    def __init__(self, backend: Backend, port: int) -> None:
        self._backend = backend
        self._url = f"http://127.0.0.1:{port}/"
        self.served = 0
        self.refused: list[str] = []

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=1)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.get(self._url) as response:
                        await response.read()
                    self.served += 1
                    await asyncio.sleep(0.05)
                except (aiohttp.ClientError, TimeoutError):
                    await self._start()

    async def _start(self) -> None:
        try:
            await self._backend.start(ignore)
        except BackendRefused as refusal:
            self.refused.append(str(refusal))
        await asyncio.sleep(0.05)


@asynccontextmanager
async def traffic(backend: Backend, port: int) -> AsyncIterator[Traffic]:
    """Ask all the time, and let the backend be watched, as it is in a proxy."""
    made = Traffic(backend, port)
    await backend.start(ignore)
    async with watching(backend) as seen:

        async def watch() -> None:
            async for _ in seen:
                pass

        tasks = [asyncio.ensure_future(made.run()), asyncio.ensure_future(watch())]
        try:
            async with asyncio.timeout(60):
                while not made.served:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.05)
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def by_hand(stack: Stack, what: str) -> None:
    """What an operator or an updater does; each step must succeed for them."""
    name = f"{stack.name}-app-1"
    match what:
        case "recreate":
            await stack.compose("up", "-d", "--force-recreate", "-t", "2")
        case "restart":
            await stack.compose("restart", "-t", "2")
        case "down and up":
            await stack.compose("down", "-t", "2")
            await stack.compose("up", "-d")
        case "remove and up":
            await stack.compose("rm", "-sf", "app")
            await stack.compose("up", "-d")
        case "rename":
            await stack.run("docker", "rename", name, f"{name}-renamed")
            await asyncio.sleep(0.5)
            await stack.run("docker", "rename", f"{name}-renamed", name)
        case "update":  # as Watchtower does it
            [seen] = json.loads(await stack.docker("inspect", "app"))
            labels = [f"--label={key}={value}" for key, value in seen["Config"]["Labels"].items()]
            [binding] = seen["HostConfig"]["PortBindings"]["8000/tcp"]
            ports = f"{binding['HostIp']}:{binding['HostPort']}:8000"
            network = seen["HostConfig"]["NetworkMode"]
            await stack.docker("stop", "app", "-t", "2")
            await stack.docker("rm", "app", "-f")
            await stack.run(
                "docker", "create", "--name", name, "--network", network, "-p", ports,
                *labels, IMAGE, *seen["Config"]["Cmd"],
            )  # fmt: skip
            await stack.docker("start", "app")


@pytest.mark.parametrize("app", [GENTLE, STUBBORN], ids=["gentle", "stubborn"])
@pytest.mark.parametrize(
    "what", ["recreate", "restart", "down and up", "remove and up", "rename", "update"]
)
async def test_nobody_is_refused_while_somebody_else_works_and_neither_is_he(
    stack: Stack, service: Start, port: int, what: str, app: dict[str, Any]
) -> None:
    stack.write(
        app=networked(app) | published(port) | after(db="started"), db=networked(program(SLEEPS))
    )
    backend = service(containers=("app",))
    async with traffic(backend, port) as clients:
        for _ in range(2):
            await by_hand(stack, what)
            served = clients.served
            async with asyncio.timeout(60):
                while clients.served < served + 3:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.05)
        assert clients.refused == []
    assert (await backend.observe()).running
    assert await stack.containers() == [f"{stack.name}-app-1", f"{stack.name}-db-1"]


async def test_what_was_stopped_by_hand_is_waited_for_and_started_again(
    stack: Stack, service: Start, port: int
) -> None:
    leaving = program(programs.ends_after(1.5))
    stack.write(app=leaving | published(port))
    backend = service()
    life = await get(await backend.start(ignore))
    async with watching(backend) as seen:
        assert (await anext(seen)).running
        stopping = asyncio.ensure_future(stack.docker("stop", "app", "-t", "10"))
        await asyncio.sleep(0.7)
        await backend.start(ignore)
        await stopping
        assert await stack.status("app") == "running"
        upstream = await backend.start(ignore)
    assert await get(upstream) != life


async def test_own_work_is_not_waited_for(stack: Stack, service: Start, port: int) -> None:
    stack.write(app=GENTLE | published(port))
    backend = service()
    await get(await backend.start(ignore))
    async with watching(backend) as seen:
        assert (await anext(seen)).running
        began = time.monotonic()
        for _ in range(3):
            await backend.stop(1)
            await backend.start(ignore)
        assert (time.monotonic() - began) / 3 < 1.5


async def test_a_replacement_that_never_came_does_not_keep_the_old_one_from_starting(
    stack: Stack, service: Start, port: int
) -> None:
    stack.write(app=GENTLE | published(port))
    backend = service()
    await backend.start(ignore)
    [seen] = json.loads(await stack.docker("inspect", "app"))
    labels = {**seen["Config"]["Labels"], "com.docker.compose.replace": seen["Id"]}
    given = [f"--label={key}={value}" for key, value in labels.items()]
    left = f"{stack.name}-left-over"
    await stack.run("docker", "create", "--name", left, *given, IMAGE, "true")
    try:
        assert await backend.observe() == Observation(running=True)
        await backend.stop(1)
        assert await get(await backend.start(ignore))
    finally:
        await stack.run("docker", "rm", "-f", left)


class TestLentNetwork:
    def write(self, stack: Stack, port: int) -> None:
        lent = {key: value for key, value in GENTLE.items() if key != "network_mode"}
        stack.write(
            app=lent | {"network_mode": "service:vpn", "restart": "unless-stopped"},
            vpn=program(SLEEPS) | published(port) | {"restart": "unless-stopped"},
        )

    @pytest.mark.parametrize("command", [("restart", "-t", "0"), ("kill",)])
    async def test_it_is_started_again_after_its_lender(
        self, stack: Stack, service: Start, port: int, command: tuple[str, ...]
    ) -> None:
        self.write(stack, port)
        backend = service(containers=("app",))
        upstream = await backend.start(ignore)
        life = await get(upstream)
        async with watching(backend) as seen:
            assert (await anext(seen)).running
            await stack.docker(command[0], "vpn", *command[1:])
            async with asyncio.timeout(60):
                while (await anext(seen)).running:
                    pass
        assert (await backend.observe()).remains
        assert await get(await backend.start(ignore)) != life
        assert (await backend.observe()).running
        await backend.verify()

    async def test_a_lender_that_crashed_and_came_back_is_noticed(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        self.write(stack, port)
        crashes = program(
            "import os, time\nwhile not os.path.exists('/tmp/end'): time.sleep(0.05)\n"
            "os.unlink('/tmp/end'); raise SystemExit(1)"
        )
        lender = crashes | published(port) | {"restart": "always"}
        lent = {key: value for key, value in GENTLE.items() if key != "network_mode"}
        stack.write(app=lent | {"network_mode": "service:vpn"}, vpn=lender)
        backend = service(containers=("app",))
        life = await get(await backend.start(ignore))
        vpn = f"{stack.name}-vpn-1"
        await stack.run("docker", "exec", vpn, "touch", "/tmp/end")
        lives = ("docker", "inspect", "--format", "{{.RestartCount}} {{.State.Status}}", vpn)
        async with asyncio.timeout(60):
            while (await stack.run(*lives)).strip() != "1 running":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await until(backend, lambda seen: not seen.running)
        assert await get(await backend.start(ignore)) != life

    async def test_it_is_made_anew_with_its_lender(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        self.write(stack, port)
        backend = service(containers=("app",))
        await get(await backend.start(ignore))
        await stack.docker("rm", "vpn", "-f")
        assert await get(await backend.start(ignore))
        assert (await backend.observe()).running
        await backend.stop(1)
        assert await get(await backend.start(ignore))

    async def test_the_lender_may_be_a_strangers(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        gateway = f"{stack.name}-gateway"
        ports = f"127.0.0.1:{port}:8000"
        await stack.run(
            "docker", "run", "-d", "--init", "--name", gateway, "-p", ports, IMAGE, "sleep", "600"
        )  # fmt: skip
        try:
            lent = {key: value for key, value in GENTLE.items() if key != "network_mode"}
            stack.write(app=lent | {"network_mode": f"container:{gateway}"})
            backend = service()
            life = await get(await backend.start(ignore))
            await backend.verify()
            await stack.run("docker", "restart", "-t", "0", gateway)
            assert not (await backend.observe()).running
            assert await get(await backend.start(ignore)) != life
            await backend.stop(1)
            assert await stack.run("docker", "inspect", gateway, "--format", "{{.State.Running}}")
        finally:
            await stack.run("docker", "rm", "-f", gateway)


async def test_a_name_that_another_container_has_is_told_at_once(
    stack: Stack, service: Start, port: int
) -> None:
    name = f"{stack.name}-fixed"
    await stack.run("docker", "create", "--name", name, IMAGE, "true")
    try:
        stack.write(app=GENTLE | published(port) | {"container_name": name})
        began = time.monotonic()
        reason = await refusal_of(service())
        assert isinstance(reason, StartFailed)
        assert f'"/{name}" is already in use' in reason.detail
        assert time.monotonic() - began < 5
    finally:
        await stack.run("docker", "rm", "-f", name)


async def test_only_one_of_two_replicas_that_ended_is_started(stack: Stack, service: Start) -> None:
    stack.write(app=program(SLEEPS) | {"scale": 2})
    backend: ComposeBackend = service()
    await backend.start(ignore)
    started = await stack.inspect("app", ".State.StartedAt")
    await stack.run("docker", "stop", "-t", "0", f"{stack.name}-app-2")
    assert not (await backend.observe()).running
    await backend.start(ignore)
    assert await stack.inspect("app", ".State.StartedAt") == started
    assert (await backend.observe()).running
