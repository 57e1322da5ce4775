"""The runner: whom it serves, and what its commands may do."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from autostart_proxy.backends import Observation
from autostart_proxy.backends.runner.client import RunnerBackend
from autostart_proxy.backends.runner.messages import Made, Order, line
from autostart_proxy.backends.runner.server import Runner
from autostart_proxy.config.units import CommandUnit
from autostart_proxy.unix_socket import bind
from tests.backends import programs
from tests.backends.contract import exit_of, get, ignore, until
from tests.backends.runner.parts import runner_of

STRANGER = 65533


def made(port: int, *command: str) -> Made:
    return Made("test.example", CommandUnit(command, None, {}, "127.0.0.1", port), 1.0)


def serving(port: int) -> Made:
    return made(port, sys.executable, "-c", programs.gentle(), "127.0.0.1", str(port))


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def gone(port: int) -> None:
    async with asyncio.timeout(30):
        while await answers(port):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("rough", [False, True])
async def test_who_hangs_up_leaves_nothing_behind(tmp_path: Path, port: int, rough: bool) -> None:
    with runner_of(tmp_path / "s"):
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(line(serving(port)) + line(Order(1, "start")))
        async with asyncio.timeout(30):
            while not await answers(port):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.02)
        if rough:
            writer.transport.abort()
        writer.close()
        await gone(port)


async def test_what_is_started_while_the_proxy_hangs_up_ends_as_well(
    tmp_path: Path, port: int
) -> None:
    with runner_of(tmp_path / "s"):
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(line(serving(port)) + line(Order(1, "start")))
        await writer.drain()
        writer.close()
        await asyncio.sleep(1)
        assert not await answers(port)


async def test_the_end_of_the_runner_is_the_end_of_its_commands(tmp_path: Path, port: int) -> None:
    with runner_of(tmp_path / "s") as runner:
        backend = RunnerBackend(tmp_path / "s", serving(port))
        await get(await backend.start(ignore))
        runner.terminate()
        assert await asyncio.to_thread(runner.wait, 30) == 0
        assert not await answers(port)
        await backend.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"x\n", line(Order(1, "start")), line(made(1, "true")) + b'{"call": 1, "verb": "x"}\n']
    + [b"x" * (5 * 1024 * 1024)],
)
async def test_who_says_anything_else_is_hung_up_on(
    tmp_path: Path, port: int, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner()
    await runner.listen(bind(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(said)
    if not said:
        writer.write_eof()
    async with asyncio.timeout(30):
        with suppress(ConnectionError):  # with something unread
            assert b"call" not in await reader.read()
    writer.close()
    backend = RunnerBackend(tmp_path / "s", serving(port))
    assert await get(await backend.start(ignore)), "others are served on"
    await backend.close()
    await runner.close()
    assert "not understood, so hung up" in caplog.text


SHOW = """
id -u; id -G
for name in "$@"; do
    if [ -r "$name" ] || [ -w "$name" ] || ls "$name"/* >/dev/null 2>&1; then echo "$name"; fi
done
env
for each in /proc/self/fd/*; do readlink "$each"; done
exit 3
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_command_has_no_right_of_the_proxys(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:4]):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(0o711)
    control, secrets, engine = (tmp_path / name for name in ("c.sock", ".env", "docker.sock"))
    secrets.write_text("HF_TOKEN=sesame")
    secrets.chmod(0o640)
    path = tmp_path / "runner.sock"
    monkeypatch.setenv("B_SECRET", "of the proxy's")
    sockets = control, engine, path, Path("/run/docker.sock")
    with bind(control), bind(engine), runner_of(path, STRANGER):
        path.chmod(0o600)
        named = map(str, (*sockets, secrets, f"/proc/{os.getpid()}/environ"))
        unit = made(port, "/bin/sh", "-c", SHOW, "sh", *named)
        backend = RunnerBackend(path, unit)
        ended = await exit_of(backend)
        await backend.close()
    assert ended.code == 3
    user, groups, *lines = ended.log_tail
    assert (user, groups) == (str(STRANGER), str(STRANGER))
    handles = {each for each in lines if each.startswith(("socket:", "pipe:"))}
    assert len(handles) == 1, "nothing but its output is handed on"
    files = {each for each in lines if each.startswith("/")}
    assert files == {"/dev/null"}, "its input; no other file can be opened"
    assert "SECRET" not in " ".join(lines)


async def test_nothing_runs_any_more_once_the_runner_is_closed(tmp_path: Path, port: int) -> None:
    runner = Runner()
    await runner.close()
    await runner.listen(bind(tmp_path / "s"))
    backend = RunnerBackend(tmp_path / "s", serving(port))
    await get(await backend.start(ignore))
    await runner.close()
    assert not await answers(port)
    assert await until(backend, lambda seen: not seen.running) == Observation(running=False)
