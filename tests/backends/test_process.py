"""The process backend: the contract, and what only a process can do."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from autostart_proxy.backends.process import ProcessBackend, open_backends
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.errors import BackendRefused, StartFailed
from tests.backends import programs
from tests.backends.contract import Contract, eventually, exit_of, get, ignore, until

Make = Callable[..., ProcessBackend]


@pytest_asyncio.fixture
async def make(port: int) -> AsyncIterator[Make]:
    made: list[ProcessBackend] = []

    def make_one(program: str, **keys: Any) -> ProcessBackend:
        command = (sys.executable, "-c", program, "127.0.0.1", str(port))
        usual: dict[str, Any] = {
            "name": "test",
            "command": command,
            "proxy_port": port,
            "stop_timeout": 1.0,
        }
        made.append(open_backends()(ServiceConfig(**usual | keys)))
        return made[-1]

    yield make_one
    for backend in made:
        await backend.close()


class TestContract(Contract):
    """Every backend's suite."""


async def test_output_is_logged_line_by_line_within_bounds(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    program = textwrap.dedent("""
        import sys
        print("one\\n\\ntwo")
        print("x" * 100_000)
        sys.stdout.buffer.write(b"\\x1b[31mred\\xff\\n")
        print("to stderr", file=sys.stderr)
        for number in range(30):
            print(number)
        print("no newline", end="")
    """)
    with caplog.at_level(logging.INFO, "autostart_proxy.backends.process"):
        ended = await exit_of(make(program))
    lines = [getattr(record, "line") for record in caplog.records]  # noqa: B009 - set by extra=
    assert lines[:2] == ["to stderr", "one"] or lines[:2] == ["one", "two"]
    assert "x" * 4096 in lines
    assert "\ufffd[31mred\ufffd" in lines
    assert max(map(len, lines)) == 4096
    assert len(ended.log_tail) == 20
    assert ended.log_tail[-1] == "no newline"
    assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_environment_and_folder_are_the_configured_ones(make: Make, tmp_path: Path) -> None:
    program = "import os; print(os.getcwd(), os.environ['WORD'], 'PATH' in os.environ)"
    ended = await exit_of(make(program, cwd=tmp_path, env={"WORD": "sesame"}))
    assert ended.log_tail == (f"{tmp_path} sesame True",)


async def test_a_signal_is_told_as_128_and_its_number(make: Make, port: int) -> None:
    backend = make(programs.stubborn())
    await get(await backend.start(ignore))
    os.kill(_leader(port), signal.SIGKILL)
    seen = await until(backend, lambda seen: seen.exit is not None)
    assert seen.exit is not None
    assert seen.exit.code == 137


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"command": ("no-such-program",)}, "no executable program 'no-such-program'"),
        ({"command": ("./no-such-program",)}, "no executable program"),
        ({"command": (__file__,)}, "no executable program"),
    ],
)
async def test_a_command_that_cannot_run_is_refused_with_the_reason(
    make: Make, keys: dict[str, object], complaint: str
) -> None:
    backend = make("", **keys)
    with pytest.raises(BackendRefused) as refusal:
        await backend.start(ignore)
    assert isinstance(refusal.value.reason, StartFailed)
    assert complaint in refusal.value.reason.detail
    assert not (await backend.observe()).running


async def test_a_program_relative_to_its_folder_is_found_there(make: Make, tmp_path: Path) -> None:
    script = tmp_path / "run"
    script.write_text("#!/bin/sh\necho here\n")
    script.chmod(0o755)
    assert (await exit_of(make("", command=("./run",), cwd=tmp_path))).log_tail == ("here",)


async def test_children_are_stopped_with_their_parent(make: Make) -> None:
    backend = make(_with_child("serve.wait()"))
    child = await _child_of(backend)
    await backend.stop(1)
    assert not _lives(child)


async def test_children_that_outlive_their_parent_are_ended_before_the_next_start(
    make: Make,
) -> None:
    backend = make(_with_child(""))
    child = await _child_of(backend)
    await until(backend, lambda seen: seen.exit is not None)
    assert _lives(child)
    await backend.start(ignore)
    assert not _lives(child)


async def test_a_halted_program_can_be_stopped_gently(make: Make, port: int) -> None:
    backend = make(programs.gentle())
    await get(await backend.start(ignore))
    os.kill(_leader(port), signal.SIGSTOP)
    async with asyncio.timeout(5):
        await backend.stop(30)


async def test_close_stops_the_program(make: Make, port: int) -> None:
    backend = make(programs.gentle())
    await get(await backend.start(ignore))
    leader = _leader(port)
    await backend.close()
    assert not _lives(leader)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
async def test_the_program_dies_with_a_proxy_that_is_killed(tmp_path: Path, port: int) -> None:
    owner = textwrap.dedent("""
        import asyncio, sys
        from autostart_proxy.backends.process import ProcessBackend
        from autostart_proxy.config.units import CommandUnit
        async def main():
            command = (sys.executable, *sys.argv[2:])
            unit = CommandUnit(command, None, {}, "127.0.0.1", int(sys.argv[1]))
            backend = ProcessBackend(unit, "test", 1.0)
            await backend.start(lambda: None)
            await asyncio.sleep(60)
        asyncio.run(main())
    """)
    arguments = ["-c", owner, str(port), "-c", programs.stubborn(), "127.0.0.1", str(port)]
    proxy = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    try:
        await eventually(lambda: _listener(port) is not None)
        pid = _leader(port)
    finally:
        if proxy.returncode is None:
            proxy.kill()
        await proxy.wait()
    await eventually(lambda: not _lives(pid))


def _with_child(then: str) -> str:
    return textwrap.dedent(f"""
        import subprocess, sys
        serve = subprocess.Popen(["sleep", "600"])
        print(serve.pid, flush=True)
        {then}
    """)


async def _child_of(backend: ProcessBackend) -> int:
    await backend.start(ignore)
    pid: list[str] = []
    async with asyncio.timeout(15):
        while not pid:
            pid = list(await backend.log_tail())
            await asyncio.sleep(0.02)
    return int(pid[0])


def _listener(port: int) -> int | None:
    """The process that listens on a port."""
    for each in psutil.net_connections("tcp4"):
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == port:
            return each.pid
    return None


def _leader(port: int) -> int:
    pid = _listener(port)
    assert pid is not None
    return pid


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
