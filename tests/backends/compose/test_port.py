"""Whose is the port where a service is to listen."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.backends.compose.port import Port
from autostart_proxy.backends.docker.api import DockerClient, docker_host
from autostart_proxy.backends.docker.container import Container
from autostart_proxy.backends.listeners import Listener
from autostart_proxy.errors import BackendRefused, Misconfigured, PortInUse
from tests.backends import programs
from tests.backends.compose.test_project import container
from tests.backends.contract import get, ignore, refusal_of
from tests.backends.stack import Stack, Start, program, published
from tests.ports import free_port

SERVE: dict[str, Any] = program(programs.gentle())


@contextmanager
def squatter(port: int, host: str = "127.0.0.1") -> Iterator[None]:
    """Somebody else who listens."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        yield


def on_host(port: int) -> dict[str, Any]:
    """A service in the host's own network, which publishes nothing."""
    return program(programs.gentle(), "127.0.0.1", str(port)) | {"network_mode": "host"}


class TestTaken:
    async def is_taken(self, port: int, *containers: Container, engine: str = "unix:///x") -> bool:
        return await Port("127.0.0.1", port, DockerClient(engine)).is_taken(containers)

    async def test_a_port_is_taken_where_somebody_listens(self, port: int) -> None:
        assert not await self.is_taken(port, container("app", "exited"))
        with squatter(port):
            assert await self.is_taken(port, container("app", "exited"))

    async def test_it_is_not_where_it_may_be_the_service_itself(self, port: int) -> None:
        here, beside = ((frozenset({("127.0.0.1", at)})) for at in (port, port + 1))
        with squatter(port):
            for its in (
                container("app", published=here),
                container("app", network_mode="host"),
                container("app", network_mode="container:x"),
            ):
                assert not await self.is_taken(port, its), its
            for others in (
                container("app", published=beside),
                container("app", "exited", published=here),
            ):
                assert await self.is_taken(port, others), others

    async def test_of_another_machine_this_one_tells_nothing(self, port: int) -> None:
        with squatter(port):
            assert not await self.is_taken(port, engine="tcp://192.0.2.1:2375")

    async def test_who_does_not_answer_does_not_listen(self) -> None:
        port = Port("192.0.2.1", 9, DockerClient("unix:///x"))
        assert not await port.is_taken([])


class TestPublication:
    def refusal(self, host: str, *bindings: tuple[str, int], **facts: Any) -> str:
        app = container("app", published=frozenset(bindings), **facts)
        try:
            Port(host, 8001, DockerClient("unix:///x")).check_publication([app])
        except BackendRefused as refusal:
            assert isinstance(refusal.reason, Misconfigured)
            return refusal.reason.detail
        return ""

    @pytest.mark.parametrize(
        ("binding", "told"),
        [
            (("", 8002), "the service publishes *:8002"),
            (("192.0.2.1", 8001), "the service publishes 192.0.2.1:8001"),
            (("::1", 8002), "the service publishes [::1]:8002"),
        ],
    )
    def test_what_is_published_elsewhere_is_told_with_where(
        self, binding: tuple[str, int], told: str
    ) -> None:
        assert told in self.refusal("127.0.0.1", binding)
        assert "127.0.0.1:8001" in self.refusal("127.0.0.1", binding)

    def test_what_is_or_may_be_here_is_let_through(self) -> None:
        assert not self.refusal("127.0.0.1", ("", 8001))
        assert not self.refusal("127.0.0.1")
        assert not self.refusal("127.0.0.1", ("", 8002), network_mode="host")
        assert not self.refusal("192.0.2.1", ("", 8002)), "of another address nothing is known"


@pytest.mark.docker
class TestOnDocker:
    async def test_a_foreign_container_at_the_port_is_named_and_left_alone(
        self, stack: Stack, service: Start, port: int, tmp_path: Path
    ) -> None:
        other = Stack(tmp_path)
        other.write(web=SERVE | published(port))
        try:
            await other.compose("up", "-d")
            stack.write(app=SERVE | published(port))
            backend = service()
            reason = await refusal_of(backend)
            assert isinstance(reason, PortInUse)
            assert f"container {other.name}-web-1 (project {other.name}" in reason.detail
            assert str(other.folder) in reason.detail
            await backend.stop(1)
            assert await other.status("web") == "running"
            assert await stack.containers() == []
        finally:
            other.down()
        assert await get(await backend.start(ignore))

    async def test_another_port_of_the_service_that_is_taken_is_named(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        second = free_port()
        ports = [f"127.0.0.1:{port}:8000", f"127.0.0.1:{second}:8000"]
        stack.write(app=SERVE | {"ports": ports})
        backend = service()
        with squatter(second):
            reason = await refusal_of(backend)
            assert isinstance(reason, PortInUse)
            assert f"127.0.0.1:{second} is used by" in reason.detail
            assert f"process {os.getpid()} (" in reason.detail
            await backend.stop(1)
        assert await get(await backend.start(ignore))

    async def test_a_service_that_publishes_another_port_is_told_at_once(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        elsewhere = free_port()
        stack.write(app=SERVE | published(elsewhere))
        reason = await refusal_of(service())
        assert isinstance(reason, Misconfigured)
        assert f"publishes 127.0.0.1:{elsewhere}" in reason.detail
        assert await stack.status("app") == "created", "it would only have to be stopped again"

    async def test_whoever_listens_where_a_service_should_is_told_with_where_it_does(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        elsewhere = free_port()
        stack.write(app=SERVE | published(elsewhere))
        await stack.compose("create")
        with squatter(port):
            reason = await refusal_of(service())
        assert isinstance(reason, PortInUse)
        assert f"the service publishes 127.0.0.1:{elsewhere}" in reason.detail

    async def test_a_port_that_the_engine_chooses_is_known_once_it_runs(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=SERVE | {"ports": [f"127.0.0.1:{port}-{port}:8000", "8000"]})
        backend = service()
        assert await get(await backend.start(ignore))
        await backend.verify()


@pytest.mark.docker
class TestHostNetwork:
    async def test_its_own_listener_is_proven(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=on_host(port))
        backend = service()
        assert await get(await backend.start(ignore))
        await backend.verify()
        await backend.start(ignore)
        await backend.verify()

    async def test_another_listener_is_refused_before_it_is_started(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=on_host(port))
        backend = service()
        with squatter(port):
            assert isinstance(await refusal_of(backend), PortInUse)
        assert await get(await backend.start(ignore))

    async def test_another_listener_is_refused_though_the_container_runs(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=on_host(free_port()))
        backend = service()
        await backend.start(ignore)
        with squatter(port), pytest.raises(BackendRefused) as refusal:
            await backend.verify()
        assert isinstance(refusal.value.reason, PortInUse)
        assert f"process {os.getpid()} (" in refusal.value.reason.detail

    async def test_a_foreign_containers_port_is_refused_though_the_container_runs(
        self, stack: Stack, service: Start, port: int, tmp_path: Path
    ) -> None:
        other = Stack(tmp_path)
        stack.write(app=on_host(free_port()))
        backend = service()
        await backend.start(ignore)
        other.write(web=SERVE | published(port))
        try:
            await other.compose("up", "-d")
            with pytest.raises(BackendRefused, match=f"{other.name}-web-1"):
                await backend.verify()
        finally:
            other.down()

    @pytest.mark.parametrize("told", [[], [Listener(None)]])
    async def test_where_the_system_does_not_tell_it_is_trusted(
        self,
        stack: Stack,
        service: Start,
        port: int,
        monkeypatch: pytest.MonkeyPatch,
        told: list[Listener],
    ) -> None:
        stack.write(app=on_host(free_port()))
        backend = service()
        await backend.start(ignore)
        monkeypatch.setattr("autostart_proxy.backends.compose.port.listeners", lambda *_: told)
        with squatter(port):
            await backend.verify()


@pytest.mark.docker
async def test_a_renamed_services_old_container_makes_room(
    stack: Stack, service: Start, port: int
) -> None:
    stack.write(old=SERVE | published(port))
    life = await get(await service().start(ignore))
    stack.write(new=SERVE | published(port))
    backend = service()  # as after a restart of the proxy
    assert not (await backend.observe()).running
    assert await get(await backend.start(ignore)) != life
    assert await stack.status("old") == "exited"
    assert (await backend.observe()).running


@pytest.mark.docker
async def test_a_front_that_is_no_part_of_the_service_may_have_its_port(
    stack: Stack, service: Start, port: int
) -> None:
    stack.write(app=program(programs.SLEEPS), front=SERVE | published(port))
    await stack.compose("up", "-d", "front")
    backend = service(containers=("app",))
    assert await get(await backend.start(ignore))
    await backend.verify()
    await backend.stop(1)
    assert await stack.status("front") == "running"


@pytest.mark.docker
async def test_what_another_file_of_the_folder_runs_at_the_port_is_told_and_left_alone(
    stack: Stack, service: Start, port: int
) -> None:
    stack.write("other.yml", tool=SERVE | published(port))
    await stack.compose("-f", "other.yml", "up", "-d")
    stack.write(app=SERVE | published(port))
    reason = await refusal_of(service())
    assert isinstance(reason, PortInUse)
    assert f"container {stack.name}-tool-1" in reason.detail
    assert await stack.containers() == [f"{stack.name}-tool-1"]
    assert await stack.status("tool") == "running"


@pytest.mark.docker
async def test_a_service_of_another_profile_at_the_port_is_told_and_left_alone(
    stack: Stack, service: Start, port: int
) -> None:
    stack.write(
        cpu=SERVE | published(port) | {"profiles": ["cpu"]},
        gpu=SERVE | published(port) | {"profiles": ["gpu"]},
    )
    await stack.compose("--profile", "cpu", "up", "-d")
    reason = await refusal_of(service(profiles=("gpu",)))
    assert isinstance(reason, PortInUse)
    assert await stack.status("cpu") == "running"


def test_the_engine_that_is_asked_is_the_one_of_the_environment() -> None:
    assert str(Port("::1", 8001, DockerClient(docker_host()))) == "[::1]:8001"
