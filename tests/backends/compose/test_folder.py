"""What Compose's files say is what is started, each time; Compose itself decides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.errors import Misconfigured
from tests.backends import programs
from tests.backends.contract import get, ignore, refusal_of
from tests.backends.programs import SLEEPS
from tests.backends.stack import Stack, Start, after, program, published

pytestmark = pytest.mark.docker

SERVE: dict[str, Any] = program(programs.gentle())


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What Compose has been asked for since the last call: `config`, `up`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log, docker = tmp_path / "asked", shutil.which("docker")
    script = f'#!/bin/sh\necho "$*" >> {log}\nexec {docker} "$@"\n'
    (folder / "docker").write_text(script)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def take() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [word for line in lines for word in line.split() if word in ("config", "up")]

    return take


class TestChanges:
    """A change is applied at the next wake, each time, also after a restart of the proxy."""

    LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
        "env_file": ({"env_file": "top.env"}, {}, "top.env"),
        "env_file in a list": ({"env_file": ["top.env"]}, {}, "top.env"),
        "env_file in a subfolder": ({"env_file": ["conf/my.vars"]}, {}, "conf/my.vars"),
        "env_file in a parent": ({"env_file": ["../outer.env"]}, {}, "../outer.env"),
        "env_file by path": (
            {"env_file": [{"path": "top.env", "required": False}]},
            {},
            "top.env",
        ),
        ".env as env_file": ({"env_file": ".env"}, {}, ".env"),
        "env_file with a variable": (
            {"env_file": ["${STAGE}.env"]},
            {".env": "STAGE=prod\n"},
            "prod.env",
        ),
        "interpolation": ({"environment": {"X_A": "${X_A:-0}"}}, {}, ".env"),
    }

    @pytest.mark.parametrize("layout", LAYOUTS)
    async def test_of_an_env_file(
        self, stack: Stack, service: Start, port: int, layout: str
    ) -> None:
        keys, files, file = self.LAYOUTS[layout]
        stack.write(app=SERVE | published(port) | keys)
        for name, text in files.items():
            stack.write_text(name, text)
        await self._follow(stack, service, lambda value: stack.write_text(file, f"X_A={value}\n"))

    async def test_of_an_included_file(self, stack: Stack, service: Start, port: int) -> None:
        stack.write_text("docker-compose.yml", "include: [sub/web.yml]\n")
        await self._follow(
            stack,
            service,
            lambda value: stack.write(
                "sub/web.yml", app=SERVE | published(port) | {"environment": {"X_A": value}}
            ),
        )

    async def test_of_an_env_file_of_an_included_file(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write_text("docker-compose.yml", "include: [{path: sub/web.yml}]\n")
        stack.write("sub/web.yml", app=SERVE | published(port) | {"env_file": "web.env"})
        await self._follow(
            stack, service, lambda value: stack.write_text("sub/web.env", f"X_A={value}\n")
        )

    async def test_of_an_extended_file(self, stack: Stack, service: Start, port: int) -> None:
        base = {"file": "../common/base.yml", "service": "base"}
        stack.write(app={"extends": base} | published(port))
        await self._follow(
            stack,
            service,
            lambda value: stack.write(
                "../common/base.yml", base=SERVE | {"environment": {"X_A": value}}
            ),
        )

    @pytest.mark.parametrize("file", ["docker-compose.override.yml", "compose.override.yaml"])
    async def test_of_an_override(self, stack: Stack, service: Start, port: int, file: str) -> None:
        stack.write(app=SERVE | published(port))
        await self._follow(
            stack, service, lambda value: stack.write(file, app={"environment": {"X_A": value}})
        )

    async def test_of_a_file_that_compose_file_names(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write("prod.yml", app=SERVE | published(port))
        stack.write_text(".env", "COMPOSE_FILE=prod.yml:../elsewhere/over.yml\n")
        await self._follow(
            stack,
            service,
            lambda value: stack.write("../elsewhere/over.yml", app={"environment": {"X_A": value}}),
        )

    async def _follow(self, stack: Stack, service: Start, give: Callable[[str], None]) -> None:
        backend = service()
        for value in "123":
            give(value)
            await backend.start(ignore)
            assert (await stack.environment("app"))["X_A"] == value
            await backend.stop(1)
        give("4")
        await service().start(ignore)  # what a proxy that was restarted would do
        assert (await stack.environment("app"))["X_A"] == "4"


class TestFastWay:
    """What has not changed is started without Compose."""

    @pytest.mark.parametrize("keys", [{}, {"env_file": "top.env"}])
    async def test_an_unchanged_project_is_only_asked_about_once(
        self,
        stack: Stack,
        service: Start,
        port: int,
        asked: Callable[[], list[str]],
        keys: dict[str, Any],
    ) -> None:
        stack.write_text("top.env", "X_A=1\n")
        stack.write(app=SERVE | published(port) | keys)
        backend = service()
        await backend.start(ignore)
        assert asked().count("up") == 1
        for _ in range(2):
            await backend.stop(1)
            await backend.start(ignore)
            assert asked() == []
        await backend.stop(1)
        await service().start(ignore)
        assert asked() == ["config", "config"], "a restarted proxy reads, and creates nothing"

    async def test_a_touched_file_is_asked_about_and_changes_nothing(
        self, stack: Stack, service: Start, port: int, asked: Callable[[], list[str]]
    ) -> None:
        stack.write(app=SERVE | published(port))
        backend = service()
        await backend.start(ignore)
        id = await stack.inspect("app", ".Id")
        await backend.stop(1)
        asked()
        (stack.folder / "docker-compose.yml").touch()
        await backend.start(ignore)
        assert asked().count("up") == 1
        assert await stack.inspect("app", ".Id") == id
        await backend.stop(1)
        await backend.start(ignore)
        assert asked() == []

    async def test_files_that_cannot_be_followed_are_asked_about_at_every_start(
        self, stack: Stack, service: Start, port: int, asked: Callable[[], list[str]]
    ) -> None:
        unknown = {"extends": {"file": "what.is.not.there", "service": "x"}}
        text = json.dumps({"x-note": unknown, "services": {"app": SERVE | published(port)}})
        stack.write_text("docker-compose.yml", text)
        backend = service()
        for _ in range(2):
            await backend.start(ignore)
            assert asked().count("up") == 1
            await backend.stop(1)

    async def test_more_replicas_are_created_and_started(
        self, stack: Stack, service: Start
    ) -> None:
        app = program(SLEEPS)
        stack.write(app=app)
        backend = service()
        await backend.start(ignore)
        await backend.stop(1)
        stack.write(app=app | {"scale": 2})
        await backend.start(ignore)
        assert len(await stack.containers()) == 2
        await stack.docker("rm", "app", "-f")
        await backend.start(ignore)
        assert len(await stack.containers()) == 2
        assert (await backend.observe()).running


class TestProfiles:
    async def test_the_profiles_that_env_names_are_active(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            cpu=program(SLEEPS) | {"profiles": ["cpu"]},
            gpu=SERVE | published(port) | {"profiles": ["gpu"]},
        )
        stack.write_text(".env", "COMPOSE_PROFILES=gpu\n")
        since = await stack.now()
        assert await get(await service().start(ignore))
        assert await stack.starts(since) == ["gpu"]
        assert await stack.containers() == [f"{stack.name}-gpu-1"]

    async def test_so_are_those_of_the_environment_which_is_stronger(
        self, stack: Stack, service: Start, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack.write(
            cpu=program(SLEEPS) | {"profiles": ["cpu"]},
            gpu=SERVE | published(port) | {"profiles": ["gpu"]},
        )
        stack.write_text(".env", "COMPOSE_PROFILES=cpu\n")
        monkeypatch.setenv("COMPOSE_PROFILES", "gpu")
        monkeypatch.setenv("COMPOSE_FILE", "/nowhere.yml")
        assert await get(await service().start(ignore))
        assert await stack.containers() == [f"{stack.name}-gpu-1"]

    async def test_the_profiles_that_the_configuration_names_are_active_instead(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(
            cpu=program(SLEEPS) | {"profiles": ["cpu"]},
            gpu=SERVE | published(port) | {"profiles": ["gpu"]},
        )
        stack.write_text(".env", "COMPOSE_PROFILES=cpu\n")
        assert await get(await service(profiles=("gpu",)).start(ignore))
        assert await stack.containers() == [f"{stack.name}-gpu-1"]

    @pytest.mark.parametrize("containers", [None, ("app",)])
    async def test_an_optional_dependency_in_an_active_profile_is_started(
        self, stack: Stack, service: Start, port: int, containers: tuple[str, ...] | None
    ) -> None:
        needs = {"depends_on": {"db": {"condition": "service_started", "required": False}}}
        stack.write(
            app=SERVE | published(port) | needs, db=program(SLEEPS) | {"profiles": ["with-db"]}
        )
        stack.write_text(".env", "COMPOSE_PROFILES=with-db\n")
        backend = service(containers=containers)
        since = await stack.now()
        await backend.start(ignore)
        assert await stack.starts(since) == ["db", "app"]
        await backend.stop(1)
        assert await stack.status("db") == "exited"

    @pytest.mark.parametrize("containers", [None, ("app",)])
    async def test_an_optional_dependency_in_no_active_profile_is_left_out(
        self, stack: Stack, service: Start, port: int, containers: tuple[str, ...] | None
    ) -> None:
        needs = {"depends_on": {"db": {"condition": "service_healthy", "required": False}}}
        stack.write(
            app=SERVE | published(port) | needs, db=program(SLEEPS) | {"profiles": ["with-db"]}
        )
        backend = service(containers=containers)
        assert await get(await backend.start(ignore))
        assert await stack.containers() == [f"{stack.name}-app-1"]


class TestNames:
    async def test_a_folder_whose_file_has_another_name_is_used(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write("compose.prod.yml", app=SERVE | published(port))
        stack.write_text(".env", "COMPOSE_FILE=compose.prod.yml\n")
        assert await get(await service().start(ignore))

    async def test_a_file_above_the_folder_is_used_as_compose_does(
        self, stack: Stack, service: Start, port: int
    ) -> None:
        stack.write(app=SERVE | published(port))
        (stack.folder / "sub").mkdir()
        backend = service(compose_dir=stack.folder / "sub")
        assert await get(await backend.start(ignore))
        assert (await backend.observe()).running
        await backend.stop(1)
        assert await stack.status("app") == "exited"

    async def test_a_service_without_replicas_is_told(self, stack: Stack, service: Start) -> None:
        stack.write(app=program(SLEEPS) | {"scale": 0}, other=program(SLEEPS))
        reason = await refusal_of(service(containers=("app",)))
        assert isinstance(reason, Misconfigured)
        assert "starts no service" in reason.detail


def composes_version() -> tuple[int, ...]:
    if shutil.which("docker") is None:
        return (0,)
    told = subprocess.run(
        ["docker", "compose", "version", "--short"], capture_output=True, text=True
    ).stdout
    return tuple(int(each) for each in told.strip().lstrip("v").split("-")[0].split(".") if each)


class TestOnlyCompose:
    """What a container is given by Compose alone."""

    @pytest.mark.skipif(composes_version() < (2, 30), reason="this Compose knows no hooks")
    async def test_hooks_are_run(self, stack: Stack, service: Start, port: int) -> None:
        stack.write(
            app=SERVE
            | published(port)
            | {
                "post_start": [{"command": ["touch", "/tmp/started"]}],
                "pre_stop": [{"command": ["sh", "-c", "echo bye > /proc/1/fd/1"]}],
            }
            | after(db="started"),
            db=program(SLEEPS),
        )
        backend = service()
        for _ in range(2):
            assert await get(await backend.start(ignore))
            assert await stack.compose("exec", "-T", "app", "ls", "/tmp/started")
            await stack.compose("exec", "-T", "app", "rm", "/tmp/started")
            await backend.stop(1)
            assert await stack.status("db") == await stack.status("app") == "exited"
            assert "bye" in await stack.docker("logs", "app", "--since", "5s")

    async def test_secrets_that_stand_in_the_environment_are_there_and_cost_nothing_later(
        self, stack: Stack, service: Start, port: int, asked: Callable[[], list[str]]
    ) -> None:
        stack.write_text(".env", "TOKEN=sesame\n")
        app = SERVE | published(port) | {"secrets": ["token"]}
        text = json.dumps(
            {"services": {"app": app}, "secrets": {"token": {"environment": "TOKEN"}}}
        )
        stack.write_text("docker-compose.yml", text)
        backend = service()
        for _ in range(3):
            assert await get(await backend.start(ignore))
            read = await stack.compose("exec", "-T", "app", "cat", "/run/secrets/token")
            assert read == "sesame"
            await backend.stop(1)
            times_up = asked().count("up")
        assert times_up == 0, "the last time it was the engine's to start"


async def test_what_runs_is_kept_though_it_has_changed_where_only_something_is_missing(
    stack: Stack, service: Start, port: int
) -> None:
    app, db = SERVE | published(port) | after(db="started"), program(SLEEPS)
    stack.write(app=app, db=db)
    backend = service()
    await backend.start(ignore)
    runs = await stack.inspect("db", ".Id")
    await stack.docker("rm", "app", "-f")
    stack.write(app=app, db=db | {"environment": {"X_A": "2"}})
    await backend.start(ignore)
    assert await stack.inspect("db", ".Id") == runs
    await backend.stop(1)
    await backend.start(ignore)
    assert (await stack.environment("db"))["X_A"] == "2"
