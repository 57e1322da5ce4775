"""The command line, and the proxy as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy import __version__
from autostart_proxy.commands import cli
from autostart_proxy.config.model import schema
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 30

# Answers with its process id; /slow waits for a second before it does.
PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/slow":
                time.sleep(1)
            body = str(os.getpid()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    if "--fail" in sys.argv:
        sys.exit("boom")
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
    """
)


class Proxy:
    """A configuration with one service, and the proxy that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)
        self.port = free_port()
        self.service_port = free_port()
        self.log = ""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.write()

    def write(self, *arguments: str, top: dict[str, Any] | None = None, **keys: Any) -> None:
        service = {
            "name": "The A",
            "command": [sys.executable, str(self.program), str(self.service_port), *arguments],
            "proxyPort": self.service_port,
            **keys,
        }
        whole = {
            "listen": f"127.0.0.1:{self.port}",
            "controlSocket": str(self.folder / "c.sock"),
            "services": {"a.example": service},
            **(top or {}),
        }
        self.config.write_text(json.dumps(whole, indent=2))

    async def start(self, **environment: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "autostart_proxy", "run", "--config", str(self.config)),
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self._reading = asyncio.ensure_future(self._read())
        await self.until_logged("listening")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in self._process.stderr:
            self.log += line.decode()

    async def until_logged(self, words: str, times: int = 1) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.log.count(words) < times:
                assert self._reading is None or not self._reading.done(), self.log
                await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait until the process has ended; return its exit status."""
        assert self._process is not None and self._reading is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            status = await self._process.wait()
            await self._reading
        return status

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self.end()

    async def get(self, path: str = "/", host: str = "a.example") -> tuple[int, str]:
        async with asyncio.timeout(LIMIT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = (await reader.read()).decode()
            writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split(" ", 2)[1]), body

    async def cli(self, *words: str) -> tuple[int, str, str]:
        """Run a command on this configuration; return status, output and errors."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "autostart_proxy", *words, "--config", str(self.config)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(LIMIT_SECONDS):
            out, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    proxy = Proxy(tmp_path)
    yield proxy
    await proxy.stop()
    # A command that outlived a killed proxy would keep its port.
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(proxy.program) in entry.read_text():
                    os.kill(int(entry.parent.name), signal.SIGKILL)


# Operators.


async def test_operators_see_wake_and_put_to_sleep(proxy: Proxy) -> None:
    await proxy.start()
    status, out, _ = await proxy.cli("status")
    assert status == 0
    head, row = out.splitlines()
    assert re.split("  +", head) == [*cli._COLUMNS]
    assert row.split()[:2] == ["a.example", "stopped"]

    status, out, _ = await proxy.cli("wake", "a.example", "--wait")
    assert (status, out[:16]) == (0, "a.example: ready")
    assert "the last start took" in out

    [service] = json.loads((await proxy.cli("status", "--json"))[1])
    assert service["state"] == "ready"
    assert 0 < service["sleeps_in_seconds"] <= 900
    assert 0 < service["last_start_seconds"] < LIMIT_SECONDS

    status, out, _ = await proxy.cli("sleep", "The A")
    assert (status, out[:18]) == (0, "a.example: stopped")

    status, out, _ = await proxy.cli("wake", "a.example")
    assert (status, out[:19]) == (0, "a.example: starting")


async def test_a_start_that_fails_ends_wake_with_status_1_and_the_reason(proxy: Proxy) -> None:
    proxy.write("--fail")
    await proxy.start()
    status, out, errors = await proxy.cli("wake", "a.example", "--wait")
    assert (status, out) == (1, "")
    assert errors.startswith("autostart-proxy: ")
    assert "boom" in proxy.log


async def test_without_a_proxy_operators_are_told_so(proxy: Proxy) -> None:
    for words in (["status"], ["wake", "a.example"], ["sleep", "a.example"]):
        status, out, errors = await proxy.cli(*words)
        assert (status, out) == (1, "")
        assert f"no proxy answers at {proxy.folder / 'c.sock'}" in errors


async def test_a_file_in_the_making_keeps_nobody_from_the_running_proxy(proxy: Proxy) -> None:
    await proxy.start()
    proxy.config.write_text("{")
    socket_of_proxy = str(proxy.folder / "c.sock")
    assert (await proxy.cli("status", "--socket", socket_of_proxy))[0] == 0


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


def test_what_keeps_the_proxy_from_starting_is_an_error_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"services": {}, "lisen": 1, "logs": {}}')
    with (tmp_path / "journal").open("w+") as journal:
        file = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{file.st_dev}:{file.st_ino}")
        monkeypatch.setattr(sys, "stderr", journal)
        assert main("run", "--config", str(config)) == 1
        journal.seek(0)
        lines = journal.read().splitlines()
    assert [line.partition(config.name)[0] for line in lines] == [
        f"<3>autostart-proxy: {tmp_path}/"
    ] * 2


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


# Without a proxy.


def main(*words: str) -> int:
    return cli.main(words)


def test_check_says_good_or_all_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"services": {"a": {"command": ["true"], "proxyPort": 1}}}')
    assert main("check", str(path)) == 0
    assert capsys.readouterr().out == f"{path}: good, 1 service\n"
    path.write_text('{"services": {"a": {"command": [], "proxyPort": 0}}}')
    assert main("check", "--config", str(path)) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}:1:32: services.a.command: ")
    assert second.startswith(f"{path}:1:49: services.a.proxyPort: ")


def test_check_finds_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("check", str(tmp_path / "c.json")) == 1
    assert "there is no such file" in capsys.readouterr().out


def test_the_schema_that_is_shipped_is_the_one_that_check_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main("check", "--schema") == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == schema()
    assert (ROOT / "config.schema.json").read_text() == printed


def test_the_shipped_configuration_lacks_nothing_but_the_services_themselves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped = json.loads((ROOT / "config.json").read_text())
    assert (ROOT / shipped["$schema"]).is_file()
    folders = [service["composeDir"] for service in shipped["services"].values()]
    assert folders == ["/opt/whisper-faster", "/opt/whisperx"]
    if not any(Path(folder).exists() for folder in folders):
        assert main("check", str(ROOT / "config.json")) == 1
        problems = capsys.readouterr().out.splitlines()
        for folder, problem in zip(folders, problems, strict=True):
            assert f"composeDir: {folder}: there is no such file or folder" in problem


def test_the_configuration_is_looked_for_in_one_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def looked_for(*words: str) -> str:
        assert main("check", *words) == 1
        return capsys.readouterr().out.partition(":")[0]

    monkeypatch.setattr(cli, "CONFIG_PATHS", (tmp_path / "etc.json", tmp_path / "here.json"))
    assert looked_for() == str(tmp_path / "etc.json")
    (tmp_path / "here.json").touch()
    assert looked_for() == str(tmp_path / "here.json")
    (tmp_path / "etc.json").touch()
    assert looked_for() == str(tmp_path / "etc.json")
    monkeypatch.setenv(cli.CONFIG_VARIABLE, str(tmp_path / "named.json"))
    assert looked_for() == str(tmp_path / "named.json")
    assert looked_for("--config", str(tmp_path / "said.json")) == str(tmp_path / "said.json")


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["stop"], ["wake"], ["status", "x"]):
        with pytest.raises(SystemExit) as ended:
            main(*words)
        assert ended.value.code == 2
    assert "usage: autostart-proxy" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"autostart-proxy {__version__}\n"


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    command = f"{sys.executable} -m autostart_proxy check --schema | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=LIMIT_SECONDS)
    assert done.stdout.strip() in (b"0", b"1")
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.04, "0.0s"),
        (59.9, "59.9s"),
        (60, "1m0s"),
        (3599, "59m59s"),
        (3600, "1h0m"),
        (90000, "1d1h"),
    ],
)
def test_durations_are_told_in_two_units(seconds: float | None, words: str) -> None:
    assert cli._duration(seconds) == words
