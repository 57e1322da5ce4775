"""The Compose backend on a real engine: the contract, and what only containers can do."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from autostart_proxy.backends import Backend, Exit, Observation
from autostart_proxy.errors import ContainerExited, PortInUse, StartFailed
from tests.backends import programs
from tests.backends.contract import (
    NOTICED_SECONDS,
    Contract,
    exit_of,
    get,
    ignore,
    order_exit,
    refusal_of,
    until,
    watching,
)
from tests.backends.programs import SLEEPS
from tests.backends.stack import IMAGE, Stack, Start, after, program, published

pytestmark = pytest.mark.docker


class TestContract(Contract):
    """Every backend's suite."""


class TestOrder:
    async def test_a_chain_is_started_from_its_end_and_stopped_from_its_head(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | after(middle="started"),
            middle=program(SLEEPS) | after(base="started"),
            base=program(SLEEPS),
        )
        backend = service(containers=("app",))
        since = await stack.now()
        assert await get(await backend.start(ignore))
        assert await stack.starts(since) == ["base", "middle", "app"]
        await backend.stop(1)
        ends = [
            await stack.inspect(each, ".State.FinishedAt") for each in ("app", "middle", "base")
        ]
        assert ends == sorted(ends)

    async def test_a_diamonds_shared_dependency_is_started_once(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle())
            | published(port)
            | after(left="started", right="started"),
            left=program(SLEEPS) | after(base="started"),
            right=program(SLEEPS) | after(base="started"),
            base=program(SLEEPS),
        )
        backend = service()
        since = await stack.now()
        await backend.start(ignore)
        starts = await stack.starts(since)
        assert starts[0] == "base"
        assert sorted(starts[1:3]) == ["left", "right"]
        assert starts[3:] == ["app"]

    async def test_a_dependent_waits_for_health(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | after(base="healthy"),
            base=program(f"import time; time.sleep(1.5); open('/tmp/up', 'w'); {SLEEPS}")
            | {"healthcheck": {"test": ["CMD", "test", "-e", "/tmp/up"], "interval": "0.5s"}},
        )
        backend = service()
        began = time.monotonic()
        assert await get(await backend.start(ignore))
        assert time.monotonic() - began > 1.5
        assert await backend.observe() == Observation(running=True)

    async def test_an_unhealthy_dependency_fails_the_start(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        check = {"test": ["CMD", "false"], "interval": "0.2s", "retries": 1}
        stack.write(
            app=program(programs.gentle()) | published(port) | after(base="healthy"),
            base=program(SLEEPS) | {"healthcheck": check},
        )
        reason = await refusal_of(service())
        assert isinstance(reason, StartFailed)
        assert "base, which is unhealthy" in reason.detail
        assert await stack.status("app") == "created"

    async def test_a_one_shot_dependency_runs_once_per_start_and_is_no_death(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle())
            | published(port)
            | after(migrate="completed_successfully"),
            migrate=program("import time; time.sleep(0.5); print('migrated')"),
        )
        backend = service()
        since = await stack.now()
        for _ in range(2):
            await backend.start(ignore)
            assert await backend.observe() == Observation(running=True)
            await backend.start(ignore)
            await backend.stop(1)
        assert await stack.starts(since) == ["migrate", "app"] * 2

    async def test_a_one_shot_dependency_that_fails_is_told(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle())
            | published(port)
            | after(migrate="completed_successfully"),
            migrate=program(programs.exits(4)),
        )
        reason = await refusal_of(service())
        assert isinstance(reason, ContainerExited)
        assert "migrate exited with 4" in reason.detail
        assert "cannot find my settings" in reason.detail
        assert await stack.status("app") == "created"

    async def test_a_dependency_that_ends_well_without_being_declared_a_one_shot_is_no_death(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | {"depends_on": ["migrate"]},
            migrate=program("print('migrated')"),
        )
        backend = service()
        await get(await backend.start(ignore))
        await eventually_status(stack, "migrate", "exited")
        assert await backend.observe() == Observation(running=True)

    async def test_a_dependency_that_dies_while_others_start_is_told_within_two_seconds(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        slow = {"test": ["CMD", "false"], "interval": "60s"}
        stack.write(
            app=program(programs.gentle())
            | published(port)
            | after(base="started", slow="healthy"),
            base=program(programs.exits(3, after_seconds=1)),
            slow=program(SLEEPS) | {"healthcheck": slow},
        )
        reason = await refusal_of(service())
        told = datetime.now(UTC)
        assert "base exited with 3" in reason.detail
        ended = datetime.fromisoformat(await stack.inspect("base", ".State.FinishedAt"))
        assert (told - ended).total_seconds() < NOTICED_SECONDS

    async def test_health_is_reported(self, stack: Stack, service: Start, port: int) -> None:
        test = ["CMD", "test", "-e", "/tmp/up"]
        check = {"test": test, "interval": "0.2s", "retries": 1, "start_period": "30s"}
        stack.write(app=program(programs.gentle()) | published(port) | {"healthcheck": check})
        backend = service()
        upstream = await backend.start(ignore)
        assert upstream.has_healthcheck
        assert await backend.observe() == Observation(running=True, healthy=False)
        healthy = asyncio.ensure_future(until(backend, lambda seen: seen.healthy is True))
        await stack.compose("exec", "-T", "app", "touch", "/tmp/up")
        assert (await healthy).running
        unhealthy = asyncio.ensure_future(until(backend, lambda seen: seen.failing))
        await stack.compose("exec", "-T", "app", "rm", "/tmp/up")
        assert await unhealthy == Observation(running=True, healthy=False, failing=True)


async def eventually_status(stack: Stack, name: str, status: str) -> None:
    async with asyncio.timeout(60):
        while await stack.status(name) != status:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)


class TestGrace:
    async def test_a_container_is_given_the_time_that_it_asks_for(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.ends_after(11))
            | published(port)
            | {"stop_grace_period": "1m"}
            | after(db="started"),
            db=program(programs.ends_after(1)),
        )
        backend = service()
        await get(await backend.start(ignore))
        assert await backend.stop(None) == ()
        for each in ("app", "db"):
            assert await stack.inspect(each, ".State.ExitCode") == "0", each

    async def test_it_is_killed_after_the_time_that_it_asks_for_and_that_is_told(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.stubborn()) | published(port) | {"stop_grace_period": "1s"}
        )
        backend = service()
        await get(await backend.start(ignore))
        began = time.monotonic()
        assert await backend.stop(None) == (Exit("app", 137),)
        assert 0.9 < time.monotonic() - began < 5
        assert await backend.observe() == Observation(running=False)

    async def test_the_configured_time_counts_before_its_own(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.stubborn()) | published(port) | {"stop_grace_period": "1m"}
        )
        backend = service()
        await get(await backend.start(ignore))
        assert await backend.stop(1) == (Exit("app", 137),)

    async def test_its_own_signal_ends_it_and_is_no_crash_whoever_sends_it(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        leaves = programs.SERVE + "import signal; signal.signal(10, lambda *_: os._exit(3))\n"
        stack.write(
            app=program(leaves + programs.LOOP) | published(port) | {"stop_signal": "SIGUSR1"}
        )
        backend = service()
        await get(await backend.start(ignore))
        async with watching(backend) as seen:
            assert (await anext(seen)).running
            await stack.docker("stop", "app")
            while (observation := await anext(seen)).running:
                pass
            assert observation == Observation(running=False)
        await get(await backend.start(ignore))
        assert await backend.stop(None) == ()
        assert await stack.inspect("app", ".State.ExitCode") == "3"


class TestRemains:
    async def test_what_is_left_of_a_service_is_seen_and_stopped_by_whoever_comes(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | after(db="started"),
            db=program(SLEEPS),
        )
        backend = service(containers=("app",))
        upstream = await backend.start(ignore)
        await get(upstream)
        await order_exit(upstream, 3)
        seen = await until(backend, lambda seen: not seen.running)
        assert seen.remains
        restarted = service(containers=("app",))
        assert await restarted.observe() == Observation(running=False, remains=True)
        await restarted.stop(None)
        assert await stack.status("db") == "exited"
        assert await restarted.observe() == Observation(running=False)

    async def test_what_was_paused_remains(
        self, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        await stack.docker("pause", "app")
        assert await backend.observe() == Observation(running=False, remains=True)


class TestByHand:
    async def test_what_is_done_by_hand_is_noticed(
        self, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await get(await backend.start(ignore))
        async with watching(backend) as seen:
            assert (await anext(seen)).running
            for command, running in [
                ("pause", False),
                ("unpause", True),
                ("stop", False),
                ("start", True),
                ("kill", False),
                ("restart", True),
                ("rm", False),
            ]:
                options = ["-f"] if command == "rm" else []
                await stack.docker(command, "app", *options)
                async with asyncio.timeout(NOTICED_SECONDS):
                    while (observation := await anext(seen)).running is not running:
                        pass
                assert observation.exit is None, command

    async def test_a_paused_service_goes_on_where_it_was(
        self, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        upstream = await backend.start(ignore)
        life = await get(upstream)
        await stack.docker("pause", "app")
        assert not (await backend.observe()).running
        await backend.start(ignore)
        assert await get(upstream) == life

    async def test_a_paused_service_can_be_stopped(
        self, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await get(await backend.start(ignore))
        await stack.docker("pause", "app")
        await backend.stop(1)
        assert await stack.status("app") == "exited"

    async def test_a_removed_container_is_made_anew(
        self, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        first = await get(await backend.start(ignore))
        await stack.docker("rm", "app", "-f")
        assert await get(await backend.start(ignore)) != first

    async def test_a_pruned_network_is_made_anew(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        app = program(programs.gentle()) | published(port) | after(base="started")
        base = program(SLEEPS)
        del app["network_mode"], base["network_mode"]
        stack.write(app=app, base=base)
        backend = service()
        await backend.start(ignore)
        await backend.stop(1)
        await stack.remove_network()
        assert await get(await backend.start(ignore))
        assert await backend.observe() == Observation(running=True)

    async def test_what_runs_already_is_adopted(
        self, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await stack.compose("up", "-d")
        async with watching(backend) as seen:
            assert (await anext(seen)).running
        life = await stack.inspect("app", ".State.StartedAt")
        await backend.start(ignore)
        assert await stack.inspect("app", ".State.StartedAt") == life

    async def test_a_changed_compose_file_is_followed_at_the_next_start(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        app = program(programs.gentle()) | published(port)
        stack.write(app=app)
        backend = service()
        await backend.start(ignore)
        created = await stack.inspect("app", ".Id")
        await backend.stop(1)

        stack.write(app=app | {"environment": {"WORD": "sesame"}})
        await backend.start(ignore)
        recreated = await stack.inspect("app", ".Id")
        assert recreated != created
        assert "WORD=sesame" in await stack.inspect("app", ".Config.Env")
        await backend.stop(1)

        await backend.start(ignore)
        assert await stack.inspect("app", ".Id") == recreated

    async def test_an_environment_file_counts_as_the_compose_file(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle())
            | published(port)
            | {"environment": {"WORD": "${WORD:-none}"}}
        )
        backend = service()
        await backend.start(ignore)
        await backend.stop(1)
        (stack.folder / ".env").write_text("WORD=sesame\n")
        await backend.start(ignore)
        assert "WORD=sesame" in await stack.inspect("app", ".Config.Env")

    async def test_a_rebuilt_image_is_used_at_the_next_start(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        image = f"{stack.name}:latest"
        await stack.tag(IMAGE, image)
        stack.write(app=program(programs.gentle()) | published(port) | {"image": image})
        backend = service()
        try:
            await backend.start(ignore)
            first = await stack.inspect("app", ".Id")
            await stack.commit("app", image)
            await backend.start(ignore)
            assert await stack.inspect("app", ".Id") == first
            await backend.stop(1)
            await backend.start(ignore)
            second = await stack.inspect("app", ".Id")
            assert second != first
            await backend.stop(1)
            await backend.start(ignore)
            assert await stack.inspect("app", ".Id") == second
        finally:
            await stack.remove_image(image)

    async def test_what_runs_is_not_replaced_when_the_compose_file_changes(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        app = program(programs.gentle()) | published(port)
        stack.write(app=app)
        backend = service()
        upstream = await backend.start(ignore)
        life = await get(upstream)
        stack.write(app=app | {"environment": {"WORD": "sesame"}})
        await backend.start(ignore)
        assert await get(upstream) == life


class TestPart:
    async def test_only_the_named_containers_and_their_dependencies_are_started_and_stopped(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | after(base="started"),
            base=program(SLEEPS),
            other=program(SLEEPS),
        )
        backend = service(containers=("app",))
        since = await stack.now()
        await get(await backend.start(ignore))
        assert await stack.starts(since) == ["base", "app"]
        await stack.compose("up", "-d", "other")
        await backend.stop(1)
        assert await stack.status("base") == "exited"
        assert await stack.status("other") == "running"
        assert not (await backend.observe()).running

    async def test_a_container_can_be_named_by_its_own_name(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | {"container_name": stack.name},
            other=program(SLEEPS),
        )
        since = await stack.now()
        await service(containers=(stack.name,)).start(ignore)
        assert await stack.starts(since) == ["app"]

    async def test_a_service_in_a_profile_is_started_by_its_name(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | {"profiles": ["extra"]},
            other=program(SLEEPS),
        )
        since = await stack.now()
        assert await get(await service(containers=("app",)).start(ignore))
        assert await stack.starts(since) == ["app"]

    async def test_a_dependency_stays_while_another_running_container_needs_it(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | after(base="started"),
            other=program(SLEEPS) | after(base="started"),
            base=program(SLEEPS),
        )
        one, other = service(containers=("app",)), service(containers=("other",))
        await one.start(ignore)
        await other.start(ignore)
        await one.stop(1)
        assert await stack.status("app") == "exited"
        assert await stack.status("base") == "running"
        assert (await other.observe()).running
        await other.stop(1)
        assert await stack.status("base") == "exited"

    async def test_a_name_that_does_not_exist_is_refused_with_those_that_do(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=program(programs.gentle()))
        reason = await refusal_of(service(containers=("ap",)))
        assert "'ap'" in reason.detail
        assert "there are: app" in reason.detail


class TestDeath:
    async def test_out_of_memory_is_told(self, stack: Stack, service: Start) -> None:
        stack.write(
            app=program("import time; time.sleep(1); bytearray(200_000_000); time.sleep(600)")
            | {"mem_limit": "32m", "memswap_limit": "32m"}
        )
        ended = await exit_of(service())
        assert ended.code == 137
        assert ended.out_of_memory

    async def test_no_restart_policy_brings_back_what_was_stopped(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=program(programs.gentle()) | published(port) | {"restart": "always"})
        backend = service()
        await get(await backend.start(ignore))
        since = await stack.now()
        await backend.stop(1)
        await asyncio.sleep(1)
        assert await stack.starts(since) == []
        assert await stack.status("app") == "exited"

    async def test_a_restart_policy_may_heal_a_start(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        flaky = (
            "import os, sys\n"
            "tries = os.path.exists('/tmp/1') + os.path.exists('/tmp/2')\n"
            "if tries < 2: open(f'/tmp/{tries + 1}', 'w'); sys.exit(1)\n"
        )
        stack.write(
            app=program(flaky + programs.gentle()) | published(port) | {"restart": "on-failure"}
        )
        backend = service()
        upstream = await backend.start(ignore)
        assert await get(upstream)
        assert await backend.observe() == Observation(running=True)

    async def test_a_crash_loop_is_a_death_whatever_the_restart_policy(
        self, stack: Stack, service: Start
    ) -> None:
        stack.write(app=program(programs.exits(3)) | {"restart": "always"})
        backend = service()
        ended = await exit_of(backend)
        assert ended.code == 3
        await backend.stop(1)
        assert await stack.status("app") == "exited"

    async def test_a_taken_port_is_told_and_works_once_freed(
        self, stack: Stack, make: Callable[[str], Backend], port: int
    ) -> None:
        backend = make(programs.gentle())
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", port))
            squatter.listen()
            for _ in range(2):
                reason = await refusal_of(backend)
                assert isinstance(reason, PortInUse)
                assert f"127.0.0.1:{port} is used by" in reason.detail
                assert f"process {os.getpid()} (" in reason.detail
                await backend.stop(1)
            assert await stack.containers() == [], "nothing useless is left behind"
        assert await get(await backend.start(ignore))


async def test_a_file_that_makes_no_sense_is_told_once_by_its_service(
    stack: Stack, service: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        words = "Compose file not understood"
        return [vars(each)["service"] for each in caplog.records if each.message == words]

    backend = service()
    assert (await backend.observe()).misconfigured
    assert told() == [], "what is missing is told where the configuration is read"
    stack.write_text("compose.yaml", "services: [")
    for _ in range(2):
        assert "did not find expected node" in (await backend.observe()).misconfigured
    assert told() == ["test.example"]
    stack.write_text("compose.yaml", "services: {app: {image: x}}")
    assert (await backend.observe()).misconfigured == ""
