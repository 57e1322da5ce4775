"""Compose files that cannot be used, and Compose itself."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from autostart_proxy.backends import Observation
from autostart_proxy.backends.compose.cli import Compose
from autostart_proxy.backends.docker.api import docker_host
from autostart_proxy.errors import Misconfigured, StartFailed
from tests.backends import programs
from tests.backends.contract import (
    NOTICED_SECONDS,
    eventually,
    ignore,
    refusal_of,
    watching,
)
from tests.backends.programs import SLEEPS
from tests.backends.stack import Stack, Start, after, program, published

pytestmark = pytest.mark.docker


async def test_a_broken_file_is_refused_in_composes_own_words(stack: Stack, service: Start) -> None:
    (stack.folder / "docker-compose.yml").write_text("services:\n  app: {imagine: x}\n")
    reason = await refusal_of(service())
    assert isinstance(reason, Misconfigured)
    assert "imagine" in reason.detail


@pytest.mark.parametrize("file", ["env_file: nowhere.env", "extends: {file: gone.yml, service: x}"])
async def test_a_file_that_is_named_and_missing_is_refused_in_composes_own_words(
    stack: Stack, service: Start, file: str
) -> None:
    stack.write_text("compose.yaml", f"services: {{app: {{image: x, {file}}}}}\n")
    reason = await refusal_of(service())
    assert isinstance(reason, Misconfigured)
    assert "nowhere.env" in reason.detail or "gone.yml" in reason.detail


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((".env", each) for each in ("sesame$#", "!sesame=1", 'T="sesame', "T='sesame")),
        *((".env", each) for each in ("T=${sesame", "a.env=sesame\nsesame{", "T: '\nsesame")),
        ("a.env", 'T="sesame'),
        *(
            ("compose.yaml", "services: {app: {image: x, environment: {A: '%s'}}}" % each)  # noqa: UP031
            for each in ("${sesame", "${A:sesame}")
        ),
    ],
)
async def test_what_compose_cannot_read_of_a_secret_is_not_repeated(
    stack: Stack, service: Start, name: str, text: str
) -> None:
    stack.write_text("compose.yaml", "services: {app: {image: x, env_file: a.env}}\n")
    stack.write_text("a.env", "B=1\n")
    stack.write_text(name, text + "\n")
    reason = await refusal_of(service())
    assert isinstance(reason, Misconfigured)
    assert "sesame" not in reason.detail


async def test_a_missing_folder_is_refused_and_is_there_once_it_is_made(
    stack: Stack, service: Start, tmp_path: Path, port: int
) -> None:
    backend = service(compose_dir=tmp_path / "moved")
    reason = await refusal_of(backend)
    assert isinstance(reason, Misconfigured)
    assert f"{tmp_path / 'moved'}: there is no such" in reason.detail
    assert await backend.observe() == Observation(running=False, misconfigured=reason.detail)
    await backend.stop(None)
    stack.write(app=program(SLEEPS))
    (tmp_path / "moved").symlink_to(stack.folder)
    try:
        await backend.start(ignore)
        assert (await backend.observe()).running
    finally:
        await stack.compose("-p", "moved", "down", "-t", "0")


async def test_a_folder_without_a_compose_file_is_refused_in_composes_own_words(
    stack: Stack, service: Start
) -> None:
    reason = await refusal_of(service())
    assert isinstance(reason, Misconfigured)
    assert "no configuration file provided" in reason.detail


async def test_another_commands_words_are_a_failed_start(stack: Stack, service: Start) -> None:
    stack.write(app=program(SLEEPS) | {"container_name": "x", "scale": 2})
    reason = await refusal_of(service())
    assert isinstance(reason, StartFailed | Misconfigured)
    assert "container name" in reason.detail


async def test_a_missing_image_is_refused_in_composes_own_words(
    stack: Stack, service: Start
) -> None:
    stack.write(app={"image": "127.0.0.1:1/no-such-image:none", "network_mode": "bridge"})
    reason = await refusal_of(service())
    assert isinstance(reason, StartFailed)
    assert "no-such-image" in reason.detail or "127.0.0.1:1" in reason.detail


async def test_containers_are_seen_and_stopped_though_their_file_is_broken(
    stack: Stack, service: Start, port: int
) -> None:
    stack.write(
        app=program(programs.gentle()) | published(port) | after(base="started"),
        base=program(SLEEPS),
    )
    await stack.compose("up", "-d")
    (stack.folder / "docker-compose.yml").write_text("services: [")
    backend = service(containers=("app",))
    assert (await backend.observe()).running
    await backend.stop(1)
    assert not (await backend.observe()).running
    assert await stack.status("base") == "exited"


async def test_a_file_that_becomes_right_is_read_again(
    stack: Stack, service: Start, port: int
) -> None:
    (stack.folder / "docker-compose.yml").write_text("services: [")
    backend = service()
    async with watching(backend) as seen:
        first = await anext(seen)
        assert (first.running, first.exit, first.remains) == (False, None, False)
        assert "did not find expected node" in first.misconfigured
        await refusal_of(backend)
        stack.write(app=program(programs.gentle()) | published(port))
        await backend.start(ignore)
        async with asyncio.timeout(NOTICED_SECONDS):
            while not (await anext(seen)).running:
                pass


async def test_compose_1_is_refused_with_the_cure(
    stack: Stack, service: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_program(tmp_path, "docker", "exit 1")
    _fake_program(tmp_path, "docker-compose", "echo 1.29.2")
    monkeypatch.setenv("PATH", str(tmp_path))
    stack.write(app=program(SLEEPS))
    reason = await refusal_of(service())
    assert "Docker Compose 2 or newer is needed" in reason.detail
    assert "1.29.2" in reason.detail


@pytest.mark.parametrize(
    ("texts", "replaced"),
    [
        (["plain", "${A}/$B", "${NONE:-x}", "a$$b"], ["plain", "1/2", "x", "a$b"]),
        (["${NONE:?it is missing}"], None),
    ],
)
async def test_compose_replaces_variables_as_in_a_file_of_the_folder(
    stack: Stack, texts: list[str], replaced: list[str] | None
) -> None:
    stack.write_text("weak.env", "A=0\nB=2\n")
    stack.write_text("strong.env", "A=1\n")
    compose = Compose(stack.folder, (), docker_host(), "test.example")
    files = [stack.folder / "weak.env", stack.folder / "strong.env"]
    assert await compose.interpolated(texts, stack.folder, files) == replaced


async def test_fingerprints_that_compose_cannot_tell_are_unknown(stack: Stack) -> None:
    compose = Compose(stack.folder, (), docker_host(), "test.example")
    assert await compose.hashes({"services": {"app": {"imagine": "x"}}}) == {}
    assert await compose.hashes({"name": "x"}) == {}


async def test_a_cancelled_preparation_ends_compose(
    stack: Stack, service: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_path = os.environ["PATH"]
    slow = (
        f"export PATH={real_path}\n"
        f'case "$*" in *" up "*) echo $$ > {tmp_path}/pid; exec sleep 600;; esac\n'
        'exec docker "$@"\n'
    )
    _fake_program(tmp_path, "docker", slow)
    monkeypatch.setenv("PATH", f"{tmp_path}:{real_path}")
    stack.write(app=program(SLEEPS))
    backend = service()
    starting = asyncio.ensure_future(backend.start(ignore))
    await eventually((tmp_path / "pid").exists)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _fake_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
