"""Operators and the running proxy, over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.backends import Upstream
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.reader import parse
from autostart_proxy.control import client, server
from autostart_proxy.control.server import ControlServer
from autostart_proxy.control.sockets import ControlError
from autostart_proxy.errors import BackendRefused, ContainerExited, Overtaken, StopFailed
from autostart_proxy.fleet import Fleet
from autostart_proxy.journal import Journal
from tests.fakes import FakeBackend

CONFIG = {
    "services": {
        "a.example": {"name": "The A", "command": ["true"], "proxyPort": 8001},
        "b.example": {"command": ["true"], "proxyPort": 8002, "idleTimeout": None},
    }
}


@pytest.fixture
async def backends() -> dict[str, FakeBackend]:
    return {}


@pytest.fixture
async def fleet(web: Upstream, backends: dict[str, FakeBackend]) -> AsyncIterator[Fleet]:
    def make(host: str, service: ServiceConfig) -> FakeBackend:
        return backends.setdefault(service.name, FakeBackend(web))

    fleet = Fleet(Journal(), make)
    fleet.apply(parse(json.dumps(CONFIG), source="config.json"))
    yield fleet
    await fleet.close()


@pytest.fixture
async def path(fleet: Fleet, tmp_path: Path) -> AsyncIterator[Path]:
    server = ControlServer(fleet)
    path = tmp_path / "run" / "control.sock"
    await server.listen(path)
    yield path
    await server.close()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to set
            await asyncio.sleep(0.005)


async def ask(path: Path, **request: Any) -> dict[str, Any]:
    return await asyncio.to_thread(client.ask, path, request)


async def test_status_tells_every_service_in_the_order_of_the_file(path: Path) -> None:
    answer = await ask(path, command="status")
    first, second = answer["services"]
    assert first.pop("since_seconds") >= 0
    assert first == {
        "host": "a.example",
        "name": "The A",
        "state": "stopped",
        "leases": 0,
        "held": 0,
        "last_start_seconds": None,
        "why": "idle",
        "sleeps_in_seconds": None,
        "error": None,
        "message": None,
        "retry_in_seconds": None,
    }
    assert second["host"] == "b.example"


async def test_wake_returns_at_once_or_waits(path: Path, backends: dict[str, FakeBackend]) -> None:
    backends["The A"].may_start.clear()
    answer = await ask(path, command="wake", name="a.example")
    assert answer["service"]["state"] == "starting"
    waiting = asyncio.ensure_future(ask(path, command="wake", name="The A", wait=True))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    backends["The A"].may_start.set()
    answer = await waiting
    assert answer["service"]["state"] == "ready"
    assert answer["service"]["last_start_seconds"] >= 0
    assert answer["service"]["why"] == "recently used, woken by an operator"


async def test_sleep_returns_when_the_service_has_stopped(
    path: Path, backends: dict[str, FakeBackend]
) -> None:
    await ask(path, command="wake", name="a.example", wait=True)
    answer = await ask(path, command="sleep", name="a.example")
    assert answer["service"]["state"] == "stopped"
    assert backends["The A"].calls == ["start", "started", "stop", "stopped"]


async def test_a_start_that_fails_is_told_with_its_cure(
    path: Path, backends: dict[str, FakeBackend]
) -> None:
    reason = ContainerExited(detail="exit code 3: boom")
    backends["The A"].fails = BackendRefused(reason)
    with pytest.raises(ControlError) as caught:
        await ask(path, command="wake", name="a.example", wait=True)
    assert str(caught.value) == f"{reason}; {reason.remedy}"
    assert "exit code 3: boom" in str(caught.value)


async def test_a_stop_that_is_refused_is_told_as_a_stop_with_its_cure(
    path: Path, backends: dict[str, FakeBackend]
) -> None:
    await ask(path, command="wake", name="a.example", wait=True)
    backends["The A"].fails = BackendRefused(StopFailed(detail="permission denied"))
    with pytest.raises(ControlError) as caught:
        await ask(path, command="sleep", name="a.example")
    told = str(caught.value)
    assert told == f"The service could not be stopped. (permission denied); {StopFailed.remedy}"
    [service, _] = (await ask(path, command="status"))["services"]
    assert service["why"] == "The service could not be stopped. (permission denied)"


async def test_who_is_overtaken_is_told_of_no_failure(
    path: Path, backends: dict[str, FakeBackend]
) -> None:
    backends["The A"].may_start.clear()
    waking = asyncio.ensure_future(ask(path, command="wake", name="a.example", wait=True))
    await eventually(lambda: "start" in backends["The A"].calls)
    await ask(path, command="sleep", name="a.example")
    with pytest.raises(ControlError) as caught:
        await waking
    assert str(caught.value) == f"The service was put to sleep.; {Overtaken.remedy}"


async def test_an_unknown_name_is_answered_with_those_that_exist(path: Path) -> None:
    for command in ("wake", "sleep"):
        with pytest.raises(ControlError, match="configured hosts: a.example, b.example"):
            await ask(path, command=command, name="c.example")


@pytest.mark.parametrize(
    "line",
    [b"\n", b"x\n", b"\xff\n", b"[]\n", b'{"command": "stop"}\n', b'{"command": "wake"}\n']
    + [b'{"command": "sleep", "name": 3}\n', b"[" * 60_000 + b"\n"],
)
async def test_what_is_no_command_is_refused(path: Path, line: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    answer = json.loads(await reader.readline())
    assert answer == {"ok": False, "error": "bad_command", "message": "expected a command"}
    assert await reader.read() == b""
    writer.close()


async def test_clients_that_leave_or_send_too_much_do_no_harm(path: Path) -> None:
    for line in (b"", b'{"command":', b"x" * (server.LINE_LIMIT_BYTES + 100)):
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(line)
        writer.close()
    assert len((await ask(path, command="status"))["services"]) == 2


async def test_who_says_nothing_is_hung_up_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await reader.read() == b""
    writer.close()


async def test_closing_ends_what_is_asked_and_removes_the_socket(
    fleet: Fleet, tmp_path: Path, backends: dict[str, FakeBackend]
) -> None:
    path = tmp_path / "c.sock"
    server = ControlServer(fleet)
    await server.listen(path)
    backends["The A"].may_start.clear()
    waiting = asyncio.ensure_future(ask(path, command="wake", name="a.example", wait=True))
    await asyncio.sleep(0.1)
    await server.close()
    with pytest.raises(ControlError, match="hung up before it was done"):
        await waiting
    assert not path.exists()
    await server.close()
    with pytest.raises(ControlError, match="no proxy answers at"):
        await ask(path, command="status")


# The socket.


async def test_only_owner_and_group_may_ask(path: Path) -> None:
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


async def test_a_dead_proxys_socket_is_replaced_and_a_live_ones_is_not(
    fleet: Fleet, tmp_path: Path
) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first, second = ControlServer(fleet), ControlServer(fleet)
    await first.listen(path)
    with pytest.raises(ControlError, match="another proxy answers here"):
        await second.listen(path)
    await second.close()
    assert len((await ask(path, command="status"))["services"]) == 2
    await first.close()


async def test_a_file_of_another_kind_is_never_removed(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    with pytest.raises(ControlError, match="is no socket; remove it, or set controlSocket"):
        await ControlServer(fleet).listen(path)
    assert path.read_text() == "precious"


async def test_a_socket_that_cannot_be_made_is_told_as_such(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "c.sock", tmp_path / ("x" * 100) / ("y" * 100)):
        with pytest.raises(ControlError, match="cannot be made"):
            await ControlServer(fleet).listen(path)


async def test_a_folder_in_tmp_that_somebody_else_made_is_not_trusted(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TEMPORARY", tmp_path)
    folder = tmp_path / "autostart-proxy-1000"
    folder.mkdir()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ControlError, match=f"belongs to user {owner}; set controlSocket"):
        await ControlServer(fleet).listen(folder / "control.sock")
