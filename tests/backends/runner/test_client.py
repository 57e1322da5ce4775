"""A command that the runner runs: the contract, and what comes of two processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from autostart_proxy.backends import Observation, Upstream, process
from autostart_proxy.backends.runner import client
from autostart_proxy.backends.runner.client import RunnerBackend
from autostart_proxy.backends.runner.server import Runner
from autostart_proxy.config.units import CommandUnit
from autostart_proxy.errors import BackendRefused, Misconfigured, PortInUse, StartFailed
from autostart_proxy.unix_socket import bind
from tests.backends import programs
from tests.backends.contract import Contract, get, ignore, until
from tests.backends.runner.parts import runner_of

Make = Callable[..., RunnerBackend]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runner.sock"


@pytest_asyncio.fixture
async def runner(path: Path) -> AsyncIterator[Runner]:
    runner = Runner()
    await runner.listen(bind(path))
    yield runner
    await runner.close()


@pytest_asyncio.fixture
async def backends(path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes backends; whether somebody runs what they name is another question."""
    monkeypatch.setenv(client.VARIABLE, str(path))
    made: list[RunnerBackend] = []

    def make_one(program: str, **keys: Any) -> RunnerBackend:
        backend = process.open_backends()("test.example", programs.service(program, port, **keys))
        assert isinstance(backend, RunnerBackend)
        made.append(backend)
        return backend

    yield make_one
    for backend in made:
        await backend.close()


@pytest_asyncio.fixture
async def make(runner: Runner, backends: Make) -> Make:
    return backends


class TestContract(Contract):
    """Every backend's suite."""


async def test_a_runner_whom_nobody_needs_is_not_asked(backends: Make) -> None:
    backend = backends(programs.gentle())
    assert await backend.observe() == Observation(running=False)
    assert await backend.stop(1) == ()
    assert await backend.log_tail() == ()


async def test_without_a_runner_a_start_is_refused_with_the_cure(
    backends: Make, path: Path
) -> None:
    with pytest.raises(BackendRefused) as refusal:
        await backends(programs.gentle()).start(ignore)
    assert isinstance(refusal.value.reason, Misconfigured)
    assert f"nobody runs it at {path}" in refusal.value.reason.detail
    assert "enable docker-autostart-commands.socket" in refusal.value.reason.detail


async def test_reasons_come_over(make: Make, port: int) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    with pytest.raises(BackendRefused) as refusal:
        await make(programs.gentle()).start(ignore)
    assert isinstance(refusal.value.reason, PortInUse)
    server.close()
    with pytest.raises(BackendRefused) as refusal:
        await make("", command=("no-such-program",)).start(ignore)
    assert isinstance(refusal.value.reason, Misconfigured)


async def test_a_replaced_command_is_waited_for_and_waiting_can_be_given_up(make: Make) -> None:
    old, new = make(programs.gentle()), make(programs.gentle())
    first = await get(await old.start(ignore))
    async with asyncio.timeout(30):
        waiting = asyncio.ensure_future(new.start(ignore))
        await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        starting = asyncio.ensure_future(new.start(ignore))
        await asyncio.sleep(0.2)
        assert not starting.done()
        await old.close()
        assert await get(await starting) != first


async def test_where_the_runner_ends_its_commands_are_seen_gone(
    path: Path, backends: Make, port: int
) -> None:
    backend = backends(programs.gentle())
    with runner_of(path) as runner:
        await get(await backend.start(ignore))
        gone = asyncio.ensure_future(until(backend, lambda seen: not seen.running))
        await asyncio.sleep(0.1)
        runner.terminate()
        assert await gone == Observation(running=False)
        with pytest.raises(BackendRefused) as refusal:
            await backend.verify()
        assert isinstance(refusal.value.reason, StartFailed)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
    path.unlink()
    with runner_of(path):
        assert await get(await backend.start(ignore)), "another runner serves as well"
        await backend.stop(1)


@pytest.mark.parametrize(
    "said",
    [b"x\n", b'{"call": "x"}\n', b"[" * 100_000 + b"\n", b"x" * (5 * 1024 * 1024), b""],
)
async def test_a_runner_that_says_anything_else_is_not_listened_to(
    backends: Make, path: Path, said: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await reader.readline()
        writer.write(said)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with asyncio.timeout(30):
        with pytest.raises(BackendRefused) as refusal:
            await backends(programs.gentle()).start(ignore)
    assert isinstance(refusal.value.reason, StartFailed)
    server.close()


async def test_a_runner_that_never_stops_talking_holds_nobody_up(
    backends: Make, path: Path
) -> None:
    told = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            while not told.is_set():
                connection.sendall(b'{"changed": true}\n' * 10_000)

    with bind(path) as listener:
        listener.listen()
        talking = threading.Thread(target=serve)
        talking.start()
        backend = backends(programs.gentle())
        starting = asyncio.ensure_future(backend.start(ignore))
        loop, worst = asyncio.get_running_loop(), 0.0
        for _ in range(100):
            began = loop.time()
            await asyncio.sleep(0.01)
            worst = max(worst, loop.time() - began)
        told.set()
        with pytest.raises(BackendRefused):
            await starting
        await asyncio.to_thread(talking.join)
    assert worst < 0.25


async def test_a_runner_cannot_lead_requests_elsewhere(
    backends: Make, path: Path, port: int
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await reader.readline()
        writer.write(b'{"call": 7}\n{"call": 1, "launched": true}\n')
        writer.write(b'{"call": 1, "upstream": {"host": "10.0.0.1", "port": 22}}\n')
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    backend = backends(programs.gentle())
    assert await backend.start(ignore) == Upstream("127.0.0.1", port)
    server.close()
    assert backend._connection is not None
    await backend._connection.close()


def test_what_is_missing_is_told_but_not_what_only_the_runner_may_see(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.VARIABLE, str(path))
    script = tmp_path / "run"
    unit = CommandUnit((str(script),), tmp_path / "none", {}, "127.0.0.1", 1)
    keys = [key for key, _ in process.missing(unit)]
    assert keys == ["command", "cwd", "command"]
    script.touch()
    with bind(path):
        [(key, reason)] = process.missing(unit)
    assert key == "cwd"
    assert "there is no such file or folder" in reason
    unit = CommandUnit(("run",), None, {}, "127.0.0.1", 1)
    path.unlink()
    [(key, reason)] = process.missing(unit)
    assert key == "command"
    assert reason.endswith("enable docker-autostart-commands.socket")
