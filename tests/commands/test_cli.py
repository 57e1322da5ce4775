"""The command line, and the proxy as a process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from autostart_proxy import __version__
from autostart_proxy.commands import cli
from autostart_proxy.config.model import schema
from autostart_proxy.control import client as control
from tests.control.test_client import proxy_that_says
from tests.ports import free_port
from tests.running import LIMIT_SECONDS, Proxy, running

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    async with running(tmp_path) as proxy:
        yield proxy


# Operators.


async def test_operators_see_wake_and_put_to_sleep(proxy: Proxy) -> None:
    await proxy.start()
    status, out, _ = await proxy.cli("status")
    assert status == 0
    head, row = out.splitlines()
    assert re.split("  +", head)[:3] == ["HOST", "NAME", "STATE"]
    assert re.split("  +", row)[:3] == ["a.example", "The A", "stopped"]

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
    status, out, errors = await proxy.cli("status")
    assert f"autostart-proxy: {proxy.config}:1:2: expected" in errors
    assert "no proxy answers" in errors
    assert (status, out) == (1, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
async def test_who_may_ask_the_proxy_need_not_read_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed.json"
    closed.write_text('{"services": {}}')
    closed.chmod(0o600)
    for each in [tmp_path, *tmp_path.parents]:
        if not each.stat().st_mode & 0o001:
            each.chmod(0o711)
    monkeypatch.setattr(cli, "CONFIG_PATHS", (closed,))
    monkeypatch.setattr(control, "SYSTEM_SOCKET", tmp_path / "s")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    for words, said in ((["status"], ""), (["status", "--config", str(closed)], "may not be read")):
        with proxy_that_says(tmp_path / "s", b'{"ok": true, "services": []}\n'):
            (tmp_path / "s").chmod(0o666)
            os.seteuid(65534)
            try:
                assert main(*words) == 0
            finally:
                os.seteuid(0)
        errors = capsys.readouterr().err
        assert said in errors and bool(said) == bool(errors)


async def test_where_nobody_answers_the_files_mistakes_are_told(proxy: Proxy) -> None:
    proxy.write(proxyport=3)
    status, _, errors = await proxy.cli("status")
    assert status == 1
    assert "proxyport: unknown key" in errors
    proxy.config.unlink()
    assert "there is no such file" in (await proxy.cli("status"))[2]


async def test_to_ask_the_proxy_takes_neither_models_nor_backends(proxy: Proxy) -> None:
    await proxy.start()
    program = (
        "import sys; from autostart_proxy.commands.cli import main; main(sys.argv[1:]);"
        "print({'pydantic', 'asyncio', 'yaml', 'logging'} & {*sys.modules})"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, "status", "--config", str(proxy.config)],
        capture_output=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.stdout.decode().splitlines()[-1] == "set()"


async def test_a_service_that_lacks_something_keeps_nobody_from_the_others(proxy: Proxy) -> None:
    service = json.loads(proxy.config.read_text())["services"]["a.example"]
    lacking = {**service, "cwd": "/no/such/folder", "proxyPort": free_port()}
    proxy.write(top={"services": {"a.example": service, "b.example": lacking}})
    status, out, _ = await proxy.cli("check")
    assert status == 1
    assert "cwd: /no/such/folder: there is no such file or folder" in out
    await proxy.start()
    await proxy.until_logged("service misconfigured")
    assert (await proxy.get())[0] == 200
    status, body = await proxy.get(host="b.example")
    assert status == 503
    assert json.loads(body)["error"] == "misconfigured"
    _, out, _ = await proxy.cli("status")
    assert "misconfigured: cwd: /no" in out.splitlines()[2]


async def test_run_takes_the_file_as_check_does(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    status, _, errors = await proxy.cli("run", str(tmp_path / "broken.json"))
    assert status == 1
    assert "broken.json:1:2: expected" in errors


@pytest.mark.parametrize("words", [("status",), ("wake", "a"), ("sleep", "a")])
@pytest.mark.parametrize("ok", [True, False])
def test_what_a_socket_says_is_shown_and_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], ok: bool
) -> None:
    obeyed = "\x1b]0;pwned\x07\x9b2J"
    service = {
        **{"host": obeyed, "name": obeyed, "state": obeyed, "why": obeyed},
        **{"since_seconds": 1.0, "leases": 0, "held": 0},
        **{"last_start_seconds": None, "sleeps_in_seconds": None},
    }
    answer = {"ok": ok, "message": f"no {obeyed}", "service": service, "services": [service]}
    with proxy_that_says(tmp_path / "s", json.dumps(answer).encode() + b"\n"):
        assert main(*words, "--socket", str(tmp_path / "s")) == (0 if ok else 1)
    printed = "".join(capsys.readouterr())
    assert "pwned" in printed
    assert printed.replace("\n", "").isprintable()


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


def test_a_file_with_secrets_that_everybody_may_read_is_a_warning_and_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.json"
    path.write_text(
        '{"services": {"a": {"command": ["true"], "proxyPort": 1, "env": {"T": "sesame"}}}}'
    )
    for each in [tmp_path, *tmp_path.parents]:
        if not each.stat().st_mode & 0o001:
            each.chmod(0o711)
    assert main("check", str(path)) == 0
    out, errors = capsys.readouterr()
    assert out == f"{path}: good, 1 service\n"
    assert errors.startswith(f"autostart-proxy: {path}: everybody on this machine may read it")
    assert "sesame" not in errors


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


def test_a_key_is_made_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ("--file", str(tmp_path / "keys.conf"))
    assert main("key", "list", *file) == 0
    assert capsys.readouterr().out.startswith("there are no keys")

    assert main("key", "add", "open-webui", *file) == 0
    out, errors = capsys.readouterr()
    assert re.fullmatch(r"autostart_open-webui_\w{43}\n", out), "the key alone"
    assert "only now" in errors
    assert "sudo systemctl reload nginx" in errors

    assert main("key", "list", *file) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"NAME +ADDED\nopen-webui +\d{4}-\d\d-\d\d\n", out)

    assert main("key", "remove", "open-webui", *file) == 0
    out, errors = capsys.readouterr()
    assert out == "open-webui: removed\n"
    assert "sudo systemctl reload nginx" in errors


def test_what_is_wrong_with_a_key_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ("--file", str(tmp_path / "keys.conf"))
    nowhere = ("--file", str(tmp_path / "missing" / "keys.conf"))
    for words in (["add", "A", *file], ["remove", "a", *file], ["list", *nowhere]):
        assert main("key", *words) == 1
        out, errors = capsys.readouterr()
        assert out == ""
        assert errors.startswith("autostart-proxy: ")
    monkeypatch.setattr(cli, "KEYS_PATH", tmp_path / "default.conf")
    (tmp_path / "nginx").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "nginx").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert main("key", "add", "a", "--reload") == 1
    out, errors = capsys.readouterr()
    assert out.startswith("autostart_a_"), "stored, so it must not be lost"
    assert "stored, but Nginx knows nothing of it" in errors
    assert (tmp_path / "default.conf").exists()


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["stop"], ["wake"], ["status", "x"], ["key"], ["key", "add"]):
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
