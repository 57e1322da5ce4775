"""The configuration file on disk: only a valid one ever takes the place of another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy import config_file
from autostart_proxy.config.model import Config
from autostart_proxy.config_file import ConfigFile
from autostart_proxy.errors import ConfigError

SOON_SECONDS = 2.0
"""The promise: a valid save is in force within this time."""


def written(port: int) -> str:
    service = {"command": ["true"], "proxyPort": port}
    return json.dumps({"services": {"a.example": service}}, indent=2)


def port_of(config: Config) -> int:
    return config.services["a.example"].proxy_port


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(written(1))
    return file


class Followed:
    """What a proxy would see of a file."""

    def __init__(self, file: ConfigFile, changes: AsyncIterator[Config]) -> None:
        self.file = file
        self._changes = changes

    async def next_port(self) -> int:
        async with asyncio.timeout(SOON_SECONDS):
            return port_of(await anext(self._changes))

    async def nothing_for(self, seconds: float) -> None:
        waiting = asyncio.ensure_future(anext(self._changes))
        done, _ = await asyncio.wait([waiting], timeout=seconds)
        assert not done, "an unchanged or refused file was put in force"
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        # A cancelled generator is over: follow anew from where we are.
        self._changes = self.file.changes(Config(services={}))


@asynccontextmanager
async def following(path: Path) -> AsyncIterator[Followed]:
    file = ConfigFile(path)
    yield Followed(file, file.changes(file.load()))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often, where a test waits for nothing to happen."""
    monkeypatch.setattr(config_file, "POLL_SECONDS", 0.1)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        str(getattr(record, "problem", ""))
        for record in caplog.records
        if record.levelno == logging.ERROR
    ]


async def test_a_valid_save_is_in_force_within_two_seconds(path: Path) -> None:
    async with following(path) as proxy:
        for port in (2, 3):
            path.write_text(written(port))
            assert await proxy.next_port() == port


async def test_a_file_replaced_by_renaming_is_seen(path: Path) -> None:
    async with following(path) as proxy:
        for port in (2, 3):
            (path.parent / "new").write_text(written(port))
            (path.parent / "new").rename(path)
            assert await proxy.next_port() == port


async def test_a_link_that_points_elsewhere_is_seen(path: Path) -> None:
    link = path.parent / "link.json"
    link.symlink_to(path)
    (path.parent / "other.json").write_text(written(2))
    async with following(link) as proxy:
        (path.parent / "swap").symlink_to(path.parent / "other.json")
        (path.parent / "swap").rename(link)
        assert await proxy.next_port() == 2


BAD = {
    "empty": ("", ":1:1: the file is empty"),
    "half-written": (written(2)[:40], ":4:4: "),
    "invalid": (written(2).replace("command", "commnad"), ":4:7: services["),
    "not UTF-8": ("{\n \udcff", ":2:2: not UTF-8"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_file_is_refused_once_with_its_place_and_the_next_good_one_applied(
    name: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text, place = BAD[name]
    async with following(path) as proxy:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        await proxy.nothing_for(0.5)
        os.utime(path)  # touched, but as bad as before
        path.write_text(written(5))
        assert await proxy.next_port() == 5
    [refusal] = refusals(caplog)
    assert f"{path}{place}" in refusal


@pytest.mark.usefixtures("impatient")
async def test_a_bad_file_that_is_touched_is_not_refused_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as proxy:
        task = asyncio.ensure_future(proxy.next_port())
        path.write_text("{")
        await asyncio.sleep(0.5)
        os.utime(path)
        await asyncio.sleep(0.5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await task
    assert len(refusals(caplog)) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_deleted_file_is_told_once_and_its_return_seen(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as proxy:
        path.unlink()
        await proxy.nothing_for(0.5)
        path.write_text(written(7))
        assert await proxy.next_port() == 7
    [refusal] = refusals(caplog)
    assert refusal == f"{path}: there is no such file or folder; create it, or correct the path"


async def test_a_slow_writer_causes_no_error(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with following(path) as proxy:
        text = written(9)
        with path.open("w") as file:
            for at in range(0, len(text), 8):
                file.write(text[at : at + 8])
                file.flush()
                await asyncio.sleep(0.02)
        assert await proxy.next_port() == 9
    assert refusals(caplog) == []


@pytest.mark.usefixtures("impatient")
async def test_an_unchanged_file_is_left_alone(path: Path) -> None:
    async with following(path) as proxy:
        await proxy.nothing_for(0.5)
        os.utime(path)
        await proxy.nothing_for(0.5)


async def test_who_asks_is_answered_at_once_whether_or_not_the_file_is_good(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as proxy:
        proxy.file.ask()
        async with asyncio.timeout(SOON_SECONDS / 5):
            assert await proxy.next_port() == 1
        path.write_text("{")
        for _ in range(2):
            proxy.file.ask()
            async with asyncio.timeout(SOON_SECONDS / 5):
                assert await proxy.next_port() == 1
    assert len(refusals(caplog)) == 2


@pytest.mark.usefixtures("impatient")
async def test_every_problem_is_a_line_of_its_own(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as proxy:
        path.write_text('{"services": {"a": {"command": [], "proxyPort": 0}}}')
        await proxy.nothing_for(0.5)
    assert [line.split(": ")[1] for line in refusals(caplog)] == [
        "services.a.command",
        "services.a.proxyPort",
    ]


def mistakes(path: Path, **service: Any) -> list[str]:
    """What is wrong with this service alone, without the places."""
    whole = {"proxyPort": 1, **service}
    other = {"proxyPort": 2, "command": ["true"]}
    path.write_text(json.dumps({"services": {"a": whole, "b": other}}))
    file = ConfigFile(path)
    assert len(file.load().services) == 2
    assert file.mistakes.keys() <= {"a"}
    return [line.split(": ", 1)[1] for line in file.mistakes.get("a", ())]


async def test_a_byte_order_mark_does_no_harm(path: Path) -> None:
    path.write_text(written(1), encoding="utf-8-sig")
    assert port_of(ConfigFile(path).load()) == 1


@pytest.mark.parametrize("name", ["compose.yaml", "docker-compose.yml"])
async def test_a_compose_folder_holds_a_compose_file(name: str, path: Path) -> None:
    folder = path.parent / "project"
    folder.mkdir()
    problem = f"services.a.composeDir: {folder} holds no Compose file; put a compose.yaml there"
    assert mistakes(path, composeDir=str(folder)) == [problem]
    (folder / name).touch()
    assert mistakes(path, composeDir=str(folder)) == []


async def test_folders_and_programs_that_are_not_there_are_named(path: Path) -> None:
    nowhere = path.parent / "nowhere"
    gone = "there is no such file or folder; create it, or correct the path"
    assert mistakes(path, composeDir=str(nowhere)) == [f"services.a.composeDir: {nowhere}: {gone}"]
    assert mistakes(path, command=["true"], cwd=str(nowhere)) == [
        f"services.a.cwd: {nowhere}: {gone}"
    ]
    assert mistakes(path, command=["true"], cwd=str(path)) == [
        f"services.a.cwd: {path}: is no folder; name the folder that holds the file"
    ]
    assert mistakes(path, command=[str(path)]) == [
        f"services.a.command: {path} is no program that can be run here; check its path and mode"
    ]
    assert mistakes(path, command=["/bin/sh"], cwd=str(path.parent)) == []


@pytest.mark.docker
def test_a_thorough_look_has_compose_read_its_projects(path: Path) -> None:
    folder = path.parent / "project"
    folder.mkdir()
    service = {"composeDir": str(folder), "containers": ["ap"], "proxyPort": 1}
    (folder / "compose.yaml").write_text("services: {app: {image: x}}")
    path.write_text(json.dumps({"services": {"A.example": service}}, indent=1))
    file = ConfigFile(path)
    file.load()
    assert not file.mistakes
    assert list(file.load(thoroughly=True).services) == ["a.example"]
    assert file.mistakes["a.example"] == (
        f"{path}:4:4: services[\"A.example\"].composeDir: no service or container 'ap' in {folder};"
        " there are: app",
    )


async def test_a_file_that_cannot_be_read_is_told_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        ConfigFile(tmp_path).load()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
async def test_a_file_of_somebody_else_is_told_as_such(path: Path) -> None:
    path.chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="may not be read by user 65534; check owner"):
            ConfigFile(path).load()
    finally:
        os.seteuid(0)


def test_files_with_secrets_that_everybody_may_read_are_told(
    path: Path, open_way: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody")
    folder = path.parent / "project"
    folder.mkdir()
    for name in (".env", "named.env", "closed.env"):
        (folder / name).write_text("HF_TOKEN=sesame\n")
        (folder / name).chmod(0o640 if name.startswith("closed") else 0o644)
    (folder / "compose.yaml").write_text(
        "services: {app: {image: x, env_file: [named.env, closed.env, {path: x, required: false}]}}"
    )
    compose = {"composeDir": str(folder), "proxyPort": 2}
    command = {"command": ["true"], "proxyPort": 3}
    path.chmod(0o644)
    path.write_text(json.dumps({"services": {"a": compose, "b": command}}))
    file = ConfigFile(path)
    told = file.exposed(file.load())
    assert [line.partition(": ")[0] for line in told] == [f"{folder}/.env", f"{folder}/named.env"]
    assert "sudo chmod 640" in told[0]
    assert "sesame" not in "".join(told)

    path.write_text(json.dumps({"services": {"b": {**command, "env": {"A": "sesame"}}}}))
    [line] = file.exposed(file.load())
    assert line.startswith(f"{path}: everybody on this machine may read it")
    path.chmod(0o640)
    assert file.exposed(file.load()) == []
    path.chmod(0o644)
    path.parent.chmod(0o700)
    assert file.exposed(file.load()) == [], "nobody else gets as far as the file"


@pytest.fixture
def open_way(tmp_path: Path) -> Iterator[None]:
    """A folder that everybody may pass, unlike those of pytest."""
    modes = {each: each.stat().st_mode & 0o7777 for each in (tmp_path, *tmp_path.parents)}
    closed = {each: mode for each, mode in modes.items() if not mode & 0o001}
    for each, mode in closed.items():
        each.chmod(mode | 0o001)
    yield
    for each, mode in closed.items():
        each.chmod(mode)
