"""The proxy as a process: start, signals, configuration, end."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from tests.backends.runner.parts import runner_of
from tests.ports import free_port
from tests.running import LIMIT_SECONDS, Proxy, running


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    async with running(tmp_path) as proxy:
        yield proxy


# Running.


async def test_a_request_is_served_and_the_proxy_ends_with_0_when_told_to(proxy: Proxy) -> None:
    await proxy.start()
    assert (await proxy.get())[0] == 200
    proxy.signal(signal.SIGTERM)
    assert await proxy.end() == 0
    assert "stopped" in proxy.log
    assert not (proxy.folder / "c.sock").exists()


async def test_what_is_in_flight_is_finished_and_what_waits_is_refused(proxy: Proxy) -> None:
    await proxy.start()
    await proxy.get()
    slow = asyncio.ensure_future(proxy.get("/slow"))
    await asyncio.sleep(0.3)
    proxy.signal(signal.SIGTERM)
    assert (await slow)[0] == 200
    assert await proxy.end() == 0


async def test_a_second_signal_ends_the_proxy_on_the_spot(proxy: Proxy) -> None:
    await proxy.start()
    await proxy.get()
    slow = asyncio.ensure_future(proxy.get("/slow"))
    await asyncio.sleep(0.3)
    proxy.signal(signal.SIGTERM)
    await asyncio.sleep(0.2)
    proxy.signal(signal.SIGTERM)
    assert await proxy.end() == -signal.SIGTERM
    with contextlib.suppress(ConnectionError, IndexError):
        await slow


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give to any group")
async def test_the_socket_for_nginx_and_the_one_for_operators_have_groups_of_their_own(
    proxy: Proxy,
) -> None:
    path = proxy.folder / "http.sock"
    proxy.write(top={"listen": f"unix:{path}", "listenGroup": "nogroup"})
    await proxy.start()
    http, control = path.stat(), (proxy.folder / "c.sock").stat()
    assert http.st_gid == grp.getgrnam("nogroup").gr_gid
    assert control.st_gid == os.getegid()
    assert stat.S_IMODE(http.st_mode) == stat.S_IMODE(control.st_mode) == 0o660


async def test_a_group_that_is_not_there_is_one_line_and_status_1(proxy: Proxy) -> None:
    path = proxy.folder / "http.sock"
    proxy.write(top={"listen": f"unix:{path}", "listenGroup": "no-such-group"})
    status, _, errors = await proxy.cli("run")
    assert status == 1
    assert "there is no group 'no-such-group'; stop what listens there, or change" in errors


async def test_a_taken_port_is_one_line_and_status_1(proxy: Proxy) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", proxy.port))
        other.listen()
        status, out, errors = await proxy.cli("run")
    assert (status, out) == (1, "")
    *_, last = errors.splitlines()
    assert last == (
        f"autostart-proxy: cannot listen on 127.0.0.1:{proxy.port}: Address already in use; "
        "stop what listens there, or change `listen`"
    )
    assert "Traceback" not in errors


async def test_a_second_proxy_does_not_start(proxy: Proxy) -> None:
    await proxy.start()
    status, _, errors = await proxy.cli("run")
    assert status == 1
    assert "another proxy answers here" in errors
    assert (await proxy.cli("status"))[0] == 0


async def test_a_bad_configuration_keeps_the_proxy_from_starting(proxy: Proxy) -> None:
    proxy.write(proxyport=3, startTimeout="x")
    status, _, errors = await proxy.cli("run")
    assert status == 1
    assert [line.split(": ")[2] for line in errors.splitlines()] == [
        'services["a.example"].proxyport',
        'services["a.example"].startTimeout',
    ]


async def test_a_log_that_nobody_reads_holds_no_request_up(proxy: Proxy) -> None:
    await proxy.start()
    proxy.stop_reading()
    request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
    async with asyncio.timeout(LIMIT_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for _ in range(50):  # half a megabyte of lines, where a pipe holds 64 KiB
            writer.write(request * 100)
            for _ in range(100):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
        writer.close()
    proxy.read_again()
    proxy.signal(signal.SIGTERM)
    assert await proxy.end() == 0
    assert proxy.log.count(" status=200 ") == 5000, "nothing was lost, only late"


# Following the configuration.


async def test_a_saved_configuration_is_in_force_and_a_bad_one_is_not(proxy: Proxy) -> None:
    await proxy.start()
    assert (await proxy.get(host="b.example"))[0] == 404
    proxy.write(aliases=["b.example"])
    await proxy.until_logged("configuration in force", times=2)
    assert (await proxy.get(host="b.example"))[0] == 200
    proxy.config.write_text('{\n  "services": }')
    await proxy.until_logged("configuration refused")
    assert f"{proxy.config}:2:15: expected a value" in proxy.log
    assert (await proxy.get(host="b.example"))[0] == 200
    proxy.write(aliases=["c.example"])
    await proxy.until_logged("configuration in force", times=3)
    assert [(await proxy.get(host=f"{x}.example"))[0] for x in "bc"] == [404, 200]


async def test_a_hangup_reads_the_configuration_again(proxy: Proxy) -> None:
    await proxy.start()
    proxy.signal(signal.SIGHUP)
    await proxy.until_logged("configuration in force", times=2)
    assert (await proxy.get())[0] == 200


async def test_log_format_changes_at_once_and_addresses_only_with_a_restart(proxy: Proxy) -> None:
    await proxy.start()
    proxy.write(top={"listen": f"127.0.0.1:{free_port()}", "log": {"format": "json"}})
    await proxy.until_logged("change only when the proxy is restarted")
    await proxy.until_logged('"message": "configuration in force"')
    assert (await proxy.get())[0] == 200


async def test_systemd_is_told_what_the_proxy_does(proxy: Proxy) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(proxy.folder / "notify"))
        supervisor.settimeout(LIMIT_SECONDS)
        told: Callable[[], str] = lambda: supervisor.recv(4096).decode()  # noqa: E731
        await proxy.start(NOTIFY_SOCKET=str(proxy.folder / "notify"))
        ready = f"READY=1\nSTATUS=listening on 127.0.0.1:{proxy.port}"
        assert await asyncio.to_thread(told) == ready
        proxy.signal(signal.SIGHUP)
        assert (await asyncio.to_thread(told)).startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert await asyncio.to_thread(told) == ready
        proxy.signal(signal.SIGTERM)
        assert await asyncio.to_thread(told) == "STOPPING=1"
        assert await proxy.end() == 0


async def test_a_supervisor_that_is_gone_does_not_matter(proxy: Proxy) -> None:
    await proxy.start(NOTIFY_SOCKET="@autostart-proxy-nobody")
    await proxy.until_logged("systemd could not be told")
    assert (await proxy.get())[0] == 200


# Commands as another user.


async def test_commands_can_be_run_by_another_process(proxy: Proxy) -> None:
    path = proxy.folder / "runner.sock"
    with runner_of(path) as runner:
        await proxy.start(AUTOSTART_PROXY_RUNNER=str(path))
        status, pid = await proxy.get()
        assert status == 200
        above = psutil.Process(int(pid)).parents()
        assert runner.pid in {each.pid for each in above}
        proxy.signal(signal.SIGKILL)
        await proxy.end()
        async with asyncio.timeout(LIMIT_SECONDS):
            while psutil.pid_exists(int(pid)):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.02)
        proxy.log = ""
        await proxy.start(AUTOSTART_PROXY_RUNNER=str(path))
        assert (await proxy.get())[0] == 200, "the next proxy is served as well"


async def test_where_nobody_runs_commands_the_service_says_so_and_others_go_on(
    proxy: Proxy,
) -> None:
    await proxy.start(AUTOSTART_PROXY_RUNNER=str(proxy.folder / "none.sock"))
    status, body = await proxy.get()
    assert status == 503
    assert '"misconfigured"' in body
    assert "enable docker-autostart-commands.socket" in proxy.log


async def test_who_runs_commands_has_to_be_handed_a_socket(proxy: Proxy) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "autostart_proxy", "run-commands"), stderr=subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"start docker-autostart-commands.socket" in errors
