"""The Compose backend on a real engine: the contract, and what only containers can do."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from autostart_proxy.backends import Backend, Observation
from autostart_proxy.backends.compose import ComposeBackend
from autostart_proxy.config import ServiceConfig
from autostart_proxy.errors import (
    BackendRefused,
    BackendUnreachable,
    ContainerExited,
    StartFailed,
)
from tests.backends import programs
from tests.backends.contract import (
    Contract,
    eventually,
    exit_of,
    get,
    ignore,
    until,
    watching,
)
from tests.backends.faulty_socket import FaultySocket
from tests.backends.stack import IMAGE, Stack, after, program, published
from tests.ports import free_port

pytestmark = pytest.mark.docker

SLEEPS = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(600)"

NOTICED_SECONDS = 2.0
"""How soon a change by hand must be noticed."""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    yield made
    made.down()


Start = Callable[..., ComposeBackend]


@pytest_asyncio.fixture
async def service(stack: Stack, port: int) -> AsyncIterator[Start]:
    """Make a backend for the stack; keys are those of `ServiceConfig`."""
    made: list[ComposeBackend] = []

    def make_one(**keys: Any) -> ComposeBackend:
        usual: dict[str, Any] = {
            "name": "test",
            "compose_dir": stack.folder,
            "proxy_port": port,
        }
        made.append(ComposeBackend(ServiceConfig(**usual | keys)))
        return made[-1]

    yield make_one
    for backend in made:
        await backend.close()


@pytest.fixture
def make(stack: Stack, service: Start, port: int) -> Callable[[str], Backend]:
    def make_one(source: str) -> Backend:
        stack.write(app=program(source) | published(port))
        return service()

    return make_one


async def refusal_of(backend: Backend) -> ContainerExited | StartFailed:
    """Why a start is refused."""
    with pytest.raises(BackendRefused) as refusal:
        await backend.start(ignore)
    assert isinstance(refusal.value.reason, (ContainerExited, StartFailed))
    return refusal.value.reason


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
        stack.write(
            app=program(programs.gentle())
            | published(port)
            | {"healthcheck": {"test": ["CMD", "test", "-e", "/tmp/up"], "interval": "0.2s"}}
        )
        backend = service()
        upstream = await backend.start(ignore)
        assert upstream.has_healthcheck
        assert await backend.observe() == Observation(running=True, healthy=False)
        healthy = asyncio.ensure_future(until(backend, lambda seen: seen.healthy is True))
        await stack.compose("exec", "-T", "app", "touch", "/tmp/up")
        assert (await healthy).running


async def eventually_status(stack: Stack, name: str, status: str) -> None:
    async with asyncio.timeout(10):
        while await stack.status(name) != status:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)


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
                assert isinstance(reason, StartFailed)
                assert str(port) in reason.detail
                await backend.stop(1)
        assert await get(await backend.start(ignore))


class TestComposeFile:
    async def test_a_broken_file_is_refused_in_composes_own_words(
        self, stack: Stack, service: Start
    ) -> None:
        (stack.folder / "docker-compose.yml").write_text("services:\n  app: {imagine: x}\n")
        reason = await refusal_of(service())
        assert isinstance(reason, StartFailed)
        assert "imagine" in reason.detail

    async def test_a_missing_folder_is_refused(
        self, stack: Stack, service: Start, tmp_path: Path
    ) -> None:
        reason = await refusal_of(service(compose_dir=tmp_path / "nowhere"))
        assert "composeDir is not a folder" in reason.detail

    async def test_a_missing_image_is_refused_in_composes_own_words(
        self, stack: Stack, service: Start
    ) -> None:
        stack.write(app={"image": "127.0.0.1:1/no-such-image:none", "network_mode": "bridge"})
        reason = await refusal_of(service())
        assert isinstance(reason, StartFailed)
        assert "no-such-image" in reason.detail or "127.0.0.1:1" in reason.detail

    async def test_containers_are_seen_and_stopped_though_their_file_is_broken(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            app=program(programs.gentle()) | published(port) | after(base="started"),
            base=program(SLEEPS),
        )
        await stack.compose("up", "-d")
        (stack.folder / "docker-compose.yml").write_text("services: [")
        backend = service(containers=("app",))
        assert (await backend.observe()).running
        await backend.stop(1)
        assert not (await backend.observe()).running
        assert await stack.status("base") == "exited"

    async def test_a_file_that_becomes_right_is_read_again(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        (stack.folder / "docker-compose.yml").write_text("services: [")
        backend = service()
        async with watching(backend) as seen:
            assert await anext(seen) == Observation(running=False)
            await refusal_of(backend)
            stack.write(app=program(programs.gentle()) | published(port))
            await backend.start(ignore)
            async with asyncio.timeout(NOTICED_SECONDS):
                while not (await anext(seen)).running:
                    pass

    async def test_compose_1_is_refused_with_the_cure(
        self, stack: Stack, service: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _fake_program(tmp_path, "docker", "exit 1")
        _fake_program(tmp_path, "docker-compose", "echo 1.29.2")
        monkeypatch.setenv("PATH", str(tmp_path))
        stack.write(app=program(SLEEPS))
        reason = await refusal_of(service())
        assert "Docker Compose 2 or newer is needed" in reason.detail
        assert "1.29.2" in reason.detail

    async def test_a_cancelled_preparation_ends_compose(
        self, stack: Stack, service: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_path = os.environ["PATH"]
        slow = (
            f"export PATH={real_path}\n"
            f'case "$*" in *" up "*) echo $$ > {tmp_path}/pid; exec sleep 600;; esac\n'
            'exec docker "$@"\n'
        )
        _fake_program(tmp_path, "docker", slow)
        monkeypatch.setenv("PATH", f"{tmp_path}:{real_path}")
        stack.write(app=program(SLEEPS))
        backend = service()
        starting = asyncio.ensure_future(backend.start(ignore))
        await eventually((tmp_path / "pid").exists)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        pid = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def _fake_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


REFUSED = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
OH_NO = b'{"message": "oh no"}'


@pytest_asyncio.fixture
async def sick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultySocket]:
    """A socket between the backend and the engine."""
    relay = FaultySocket(tmp_path / "docker.sock")
    await relay.appear()
    monkeypatch.setenv("DOCKER_HOST", relay.address)
    yield relay
    monkeypatch.delenv("DOCKER_HOST")
    await relay.vanish()


class TestSickDaemon:
    @pytest.mark.parametrize("warm", [False, True])
    async def test_an_engine_that_is_gone_is_told_within_five_seconds_and_found_again(
        self, sick: FaultySocket, make: Callable[[str], Backend], warm: bool
    ) -> None:
        backend = make(programs.gentle())
        if warm:
            await backend.start(ignore)
            await backend.stop(1)
        await sick.vanish()
        for call in (backend.start(ignore), backend.observe()):
            async with asyncio.timeout(5):
                with pytest.raises(BackendUnreachable, match="docker.sock"):
                    await call
        await sick.appear()
        assert await get(await backend.start(ignore))

    @pytest.mark.parametrize("warm", [False, True])
    async def test_an_engine_that_never_answers_is_given_up_without_blocking_anything(
        self, sick: FaultySocket, make: Callable[[str], Backend], warm: bool
    ) -> None:
        backend = make(programs.gentle())
        if warm:
            await backend.start(ignore)
            await backend.stop(1)
        sick.mute = True
        beats: list[float] = []

        async def beat() -> None:
            while True:
                beats.append(time.monotonic())
                await asyncio.sleep(0.05)

        beating = asyncio.ensure_future(beat())
        async with asyncio.timeout(5):
            with pytest.raises(BackendUnreachable, match="did not answer in time"):
                await backend.start(ignore)
        beating.cancel()
        assert max(b - a for a, b in zip(beats, beats[1:], strict=False)) < 1
        sick.mute = False
        await sick.cut(lambda line: True)
        assert await get(await backend.start(ignore))

    async def test_a_broken_event_stream_is_opened_again_and_nothing_is_missed(
        self, sick: FaultySocket, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        upstream = await backend.start(ignore)
        await get(upstream)
        async with watching(backend) as seen:
            assert (await anext(seen)).running
            await eventually(lambda: any("/events" in line for line in sick.asked))
            sick.cut_events_at_once = True
            await sick.cut()
            await _die(upstream.port)
            sick.cut_events_at_once = False
            async with asyncio.timeout(5):
                while (observation := await anext(seen)).exit is None:
                    pass
            assert observation.exit.code == 9

    async def test_an_event_stream_that_always_breaks_costs_next_to_nothing(
        self, sick: FaultySocket, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        watch = asyncio.ensure_future(until(backend, lambda seen: seen.exit is not None, 60))
        sick.cut_events_at_once = True
        await sick.cut()
        sick.asked.clear()
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(6)
        share = (time.process_time() - used) / (time.monotonic() - began)
        watch.cancel()
        tries = sum("/events" in line for line in sick.asked)
        assert 3 <= tries <= 9
        assert share < 0.05

    async def test_a_start_of_what_runs_already_is_a_success(
        self, sick: FaultySocket, stack: Stack, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        await backend.stop(1)
        await stack.compose("start")
        sick.answer_instead("POST .*/start", b"HTTP/1.1 304 Not Modified\r\n\r\n")
        assert await get(await backend.start(ignore))

    @pytest.mark.parametrize("status", [b"409 Conflict", b"500 Internal Server Error"])
    async def test_a_refused_start_is_told_and_tried_afresh(
        self, sick: FaultySocket, make: Callable[[str], Backend], status: bytes
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        await backend.stop(1)
        sick.answer_instead("POST .*/start", REFUSED % status + OH_NO)
        reason = await refusal_of(backend)
        assert isinstance(reason, StartFailed)
        assert reason.detail == "oh no"
        assert await get(await backend.start(ignore))

    async def test_a_container_that_vanishes_between_look_and_start_is_made_anew(
        self, sick: FaultySocket, make: Callable[[str], Backend]
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        await backend.stop(1)
        sick.answer_instead("POST .*/start", REFUSED % b"404 Not Found" + OH_NO)
        assert await get(await backend.start(ignore))

    @pytest.mark.parametrize("what", ["/containers/json", "/containers/[0-9a-f]+/json"])
    async def test_a_cut_answer_is_told_and_asked_for_again(
        self, sick: FaultySocket, make: Callable[[str], Backend], what: str
    ) -> None:
        backend = make(programs.gentle())
        await backend.start(ignore)
        await backend.stop(1)
        sick.answer_instead(what, None)
        with pytest.raises(BackendUnreachable):
            await backend.start(ignore)
        assert await get(await backend.start(ignore))

    async def test_an_address_that_cannot_be_used_is_told_with_the_cure(
        self, make: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
        backend = make(programs.gentle())
        with pytest.raises(BackendUnreachable, match="use unix:///path"):
            await backend.observe()


async def _die(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /exit/9 HTTP/1.0\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.close()
