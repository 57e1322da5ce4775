"""The process backend: the contract, and what only a process can do."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from autostart_proxy.backends import Observation, processes
from autostart_proxy.backends.process import ProcessBackend, open_backends
from autostart_proxy.errors import BackendRefused, Misconfigured, PortInUse
from tests.backends import programs
from tests.backends.contract import (
    NOTICED_SECONDS,
    Contract,
    eventually,
    exit_of,
    get,
    ignore,
    order_exit,
    until,
)

Make = Callable[..., ProcessBackend]


@pytest_asyncio.fixture
async def make(port: int) -> AsyncIterator[Make]:
    made: list[ProcessBackend] = []

    def make_one(program: str, **keys: Any) -> ProcessBackend:
        backend = open_backends()("test.example", programs.service(program, port, **keys))
        assert isinstance(backend, ProcessBackend)
        made.append(backend)
        return backend

    yield make_one
    for backend in made:
        await backend.close()


class TestContract(Contract):
    """Every backend's suite."""


def test_a_command_with_all_rights_of_the_proxy_is_told_of(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    make("")
    [warning] = caplog.records
    assert "docker-autostart-commands.socket" in warning.getMessage()
    assert getattr(warning, "service") == "test.example"  # noqa: B009 - set by extra=


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
    backend = make(program)
    caplog.clear()
    with caplog.at_level(logging.INFO, "autostart_proxy.backends.process"):
        ended = await exit_of(backend)
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


async def test_nothing_of_the_proxys_environment_is_handed_on_that_could_be_a_secret(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "DOCKER_HOST", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "LD_PRELOAD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("TZ", "UTC")
    ended = await exit_of(make("import os; print(*sorted(os.environ))", env={"A_TOKEN": "t"}))
    [line] = ended.log_tail
    # Python sets LC_CTYPE itself.
    usual = {"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"}
    known = usual | {"A_TOKEN", processes.VARIABLE, "LC_TIME", "LC_ALL", "LC_CTYPE"}
    assert {"A_TOKEN", "LC_TIME", "PATH", "TZ", processes.VARIABLE} <= {*line.split()} <= known


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
        ({"command": ("no-such-program",)}, "command: no program 'no-such-program' can be run"),
        ({"command": ("./no-such-program",)}, "/no-such-program' can be run"),
        ({"command": (__file__,)}, "command: no program"),
        ({"cwd": Path("/no/such/folder")}, "cwd: /no/such/folder is no folder"),
    ],
)
async def test_a_command_that_cannot_run_is_refused_with_the_reason(
    make: Make, keys: dict[str, object], complaint: str
) -> None:
    backend = make("", **keys)
    with pytest.raises(BackendRefused) as refusal:
        await backend.start(ignore)
    assert isinstance(refusal.value.reason, Misconfigured)
    assert complaint in refusal.value.reason.detail
    assert not (await backend.observe()).running


async def test_a_program_relative_to_its_folder_is_found_there(make: Make, tmp_path: Path) -> None:
    script = tmp_path / "run"
    script.write_text("#!/bin/sh\necho here\n")
    script.chmod(0o755)
    assert (await exit_of(make("", command=("./run",), cwd=tmp_path))).log_tail == ("here",)


@pytest.mark.parametrize("launcher", [(), ("setsid",), ("env", "-i", "/usr/bin/setsid")])
async def test_children_are_stopped_with_their_parent(
    make: Make, launcher: tuple[str, ...]
) -> None:
    backend = make(_with_child("serve.wait()", launcher))
    child = await _child_of(backend)
    await backend.stop(1)
    assert not _lives(child)


@pytest.mark.parametrize("launcher", [(), ("setsid",)])
async def test_children_that_outlive_a_crash_remain_until_the_next_start(
    make: Make, launcher: tuple[str, ...]
) -> None:
    backend = make(_with_child("sys.exit(3)", launcher))
    child = await _child_of(backend)
    seen = await until(backend, lambda seen: seen.exit is not None)
    assert not seen.running
    assert seen.remains
    assert _lives(child)
    await backend.start(ignore)
    assert not _lives(child)


async def test_children_that_outlive_a_crash_are_stopped(make: Make) -> None:
    backend = make(_with_child("sys.exit(3)"))
    child = await _child_of(backend)
    await until(backend, lambda seen: seen.remains)
    await backend.stop(1)
    assert not _lives(child)
    assert await backend.observe() == Observation(running=False)


async def test_what_remains_and_ends_by_itself_is_seen_gone(make: Make) -> None:
    backend = make(_with_child("sys.exit(3)"))
    child = await _child_of(backend)
    await until(backend, lambda seen: seen.remains)
    os.kill(child, signal.SIGKILL)
    seen = await until(backend, lambda seen: not seen.remains)
    assert seen.exit is not None


class TestInTheBackground:
    """A start script that ends with 0 and leaves a server."""

    async def test_it_runs_as_long_as_something_of_it_does(self, make: Make, port: int) -> None:
        backend = make(_in_background(programs.gentle()))
        upstream = await backend.start(ignore)
        await get(upstream)
        await asyncio.sleep(0.5)  # the script's end has been seen by now
        assert await backend.observe() == Observation(running=True)
        await backend.verify()
        life = await get(upstream)
        await backend.start(ignore)
        assert await get(upstream) == life
        await order_exit(upstream, 7)
        seen = await until(backend, lambda seen: seen.exit is not None, NOTICED_SECONDS)
        assert not seen.running

    async def test_it_is_stopped(self, make: Make, port: int) -> None:
        backend = make(_in_background(programs.gentle()))
        await get(await backend.start(ignore))
        server = _leader(port)
        await asyncio.sleep(0.5)
        assert await backend.stop(5) == ()
        assert not _lives(server)

    async def test_it_is_killed_where_it_does_not_end(self, make: Make, port: int) -> None:
        backend = make(_in_background(programs.stubborn()))
        await get(await backend.start(ignore))
        assert [each.code for each in await backend.stop(0.5)] == [137]
        assert _listener(port) is None


class TestPort:
    """Who has the port that the command is to have."""

    async def test_a_start_is_refused_while_somebody_else_has_it(
        self, make: Make, port: int
    ) -> None:
        backend = make(programs.gentle())
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(BackendRefused) as refusal:
                await backend.start(_must_not_be_called)
            assert isinstance(refusal.value.reason, PortInUse)
            assert f"process {os.getpid()} (" in refusal.value.reason.detail
            assert f"listens on 127.0.0.1:{port}" in refusal.value.reason.detail
        assert await get(await backend.start(ignore))

    async def test_who_took_it_before_the_command_could_is_not_taken_for_it(
        self, make: Make, port: int
    ) -> None:
        backend = make(programs.SLEEPS)
        await backend.start(ignore)
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(BackendRefused) as refusal:
                await backend.verify()
            assert isinstance(refusal.value.reason, PortInUse)

    @pytest.mark.parametrize("launcher", [(), ("setsid",), ("env", "-i", "/usr/bin/setsid")])
    async def test_a_descendant_may_listen(
        self, make: Make, port: int, launcher: tuple[str, ...]
    ) -> None:
        command = [*launcher, sys.executable, "-c", programs.gentle(), "127.0.0.1", str(port)]
        backend = make(f"import subprocess; subprocess.run({command!r})")
        await get(await backend.start(ignore))
        await backend.verify()

    async def test_a_container_that_the_command_runs_may_listen(
        self, make: Make, port: int
    ) -> None:
        published = f"127.0.0.1:{port}:80"
        run = ("docker", "run", "--rm", "--publish", published, "python:3.11-slim")
        backend = make("", command=(*run, "python3", "-c", programs.gentle(), "0.0.0.0", "80"))
        await get(await backend.start(ignore))
        await backend.verify()
        assert await backend.stop(10) == ()
        assert _listener(port) is None

    async def test_a_replaced_command_is_waited_for(self, make: Make, port: int) -> None:
        old, new = make(programs.gentle()), make(programs.gentle())
        first = await get(await old.start(ignore))
        starting = asyncio.ensure_future(new.start(ignore))
        await asyncio.sleep(0.2)
        assert not starting.done()
        await old.close()
        second = await get(await starting)
        assert first != second


@pytest.mark.parametrize("launcher", [(), ("setsid",)])
async def test_what_a_killed_proxy_left_is_told_and_ended(
    make: Make, port: int, launcher: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    serve = [*launcher, sys.executable, "-c", programs.gentle(), "127.0.0.1", str(port)]
    wrapper = f"import subprocess; subprocess.run({serve!r})"
    proxy = await _other_proxy(port, sys.executable, "-c", wrapper)
    await eventually(lambda: _listener(port) is not None)
    orphan = _leader(port)
    backend = make(programs.gentle())
    caplog.clear()

    # While the other proxy lives, what it runs is not ours to end.
    with pytest.raises(BackendRefused) as refusal:
        await backend.start(_must_not_be_called)
    assert isinstance(refusal.value.reason, PortInUse)
    assert str(orphan) in refusal.value.reason.detail
    assert not (await backend.observe()).remains

    proxy.kill()
    await proxy.wait()
    with caplog.at_level(logging.WARNING, "autostart_proxy.backends.process"):
        await until(backend, lambda seen: seen.remains)
        assert not (await backend.observe()).running
    # Its wrapper, which its proxy's end ends, may still be seen.
    told = [each for line in caplog.records for each in getattr(line, "processes")]  # noqa: B009
    assert len([each for each in told if each.startswith(f"process {orphan} (python")]) == 1
    assert await get(await backend.start(ignore))
    assert not _lives(orphan)


async def test_what_a_killed_proxy_left_is_stopped(make: Make, port: int) -> None:
    serve = [sys.executable, "-c", programs.gentle(), "127.0.0.1", str(port)]
    proxy = await _other_proxy(port, *serve[:2], f"import subprocess; subprocess.run({serve!r})")
    await eventually(lambda: _listener(port) is not None)
    proxy.kill()
    await proxy.wait()
    backend = make(programs.gentle())
    await backend.stop(5)
    assert _listener(port) is None
    assert await backend.observe() == Observation(running=False)


async def test_a_halted_program_can_be_stopped_gently(make: Make, port: int) -> None:
    backend = make(programs.gentle())
    await get(await backend.start(ignore))
    os.kill(_leader(port), signal.SIGSTOP)
    async with asyncio.timeout(15):
        await backend.stop(30)


async def test_close_stops_the_program(make: Make, port: int) -> None:
    backend = make(programs.gentle())
    await get(await backend.start(ignore))
    leader = _leader(port)
    await backend.close()
    assert not _lives(leader)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
async def test_the_program_dies_with_a_proxy_that_is_killed(tmp_path: Path, port: int) -> None:
    stubborn = [sys.executable, "-c", programs.stubborn(), "127.0.0.1", str(port)]
    proxy = await _other_proxy(port, *stubborn)
    try:
        await eventually(lambda: _listener(port) is not None)
        pid = _leader(port)
    finally:
        if proxy.returncode is None:
            proxy.kill()
        await proxy.wait()
    await eventually(lambda: not _lives(pid))


async def _other_proxy(port: int, *command: str) -> asyncio.subprocess.Process:
    """A process that runs a command as we do."""
    owner = textwrap.dedent("""
        import asyncio, sys
        from autostart_proxy.backends.process import ProcessBackend
        from autostart_proxy.config.units import CommandUnit
        async def main():
            unit = CommandUnit((*sys.argv[2:],), None, {}, "127.0.0.1", int(sys.argv[1]))
            backend = ProcessBackend(unit, "test", 1.0)
            await backend.start(lambda: None)
            await asyncio.sleep(60)
        asyncio.run(main())
    """)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", owner, str(port), *command, start_new_session=True
    )


def _must_not_be_called() -> None:
    raise AssertionError("launched")


def _with_child(then: str, launcher: tuple[str, ...] = ()) -> str:
    """A program that starts a child, tells its pid, and does something then."""
    tell_and_sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    command = [*launcher, sys.executable, "-c", tell_and_sleep]
    return textwrap.dedent(f"""
        import subprocess, sys, time
        serve = subprocess.Popen({command!r}, stdout=subprocess.PIPE)
        print(serve.stdout.readline().decode().strip(), flush=True)
        time.sleep(0.3)
        {then}
    """)


def _in_background(program: str) -> str:
    return textwrap.dedent(f"""
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", {program!r}, *sys.argv[1:]])
    """)


async def _child_of(backend: ProcessBackend) -> int:
    await backend.start(ignore)
    pid: list[str] = []
    async with asyncio.timeout(60):
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
