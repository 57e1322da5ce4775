"""Which backend runs what, and what its unit lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from autostart_proxy.backends.compose.backend import ComposeBackend
from autostart_proxy.backends.process import ProcessBackend
from autostart_proxy.backends.registry import MODULES, Backends, missing, problems
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.units import CommandUnit, Unit


def config(**keys: Any) -> ServiceConfig:
    return ServiceConfig(**{"name": "test", "proxy_port": 8001, **keys})


def test_every_kind_of_unit_has_a_backend() -> None:
    assert set(MODULES) == set(get_args(Unit))


async def test_each_unit_gets_its_own_kind(tmp_path: Path) -> None:
    backends = Backends()
    assert isinstance(backends.make("a.example", config(command=("true",))), ProcessBackend)
    assert isinstance(backends.make("a.example", config(compose_dir=tmp_path)), ComposeBackend)


async def test_the_compose_projects_of_one_fleet_share_a_client_and_know_each_other(
    tmp_path: Path,
) -> None:
    def compose(backends: Backends) -> ComposeBackend:
        made = backends.make("a.example", config(compose_dir=tmp_path))
        assert isinstance(made, ComposeBackend)
        return made

    fleet = Backends()
    one, two, stranger = compose(fleet), compose(fleet), compose(Backends())
    for shared in ("_client", "_events", "_neighbours"):
        assert getattr(one, shared) is getattr(two, shared)
        assert getattr(one, shared) is not getattr(stranger, shared)


def test_what_a_unit_names_and_is_not_there_is_told_by_its_key(tmp_path: Path) -> None:
    unit = CommandUnit((str(tmp_path / "none"),), tmp_path / "nowhere", {}, "127.0.0.1", 1)
    assert [key for key, _ in missing(unit)] == ["cwd", "command"]
    assert list(missing(config(command=("true",)).unit)) == []


def test_a_backend_that_nobody_needs_is_not_loaded() -> None:
    """Docker's client costs an idle proxy of plain commands nothing."""
    program = (
        "import sys\n"
        "from autostart_proxy.backends.registry import Backends\n"
        "from autostart_proxy.config.model import ServiceConfig\n"
        "Backends().make('a.example', ServiceConfig(name='a', proxy_port=1, command=('true',)))\n"
        "print(*(name for name in sys.modules if 'backends.docker' in name))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr


@pytest.mark.docker
async def test_what_compose_would_refuse_can_be_asked_beforehand(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {app: {imagine: x}}\n")
    units = {
        "a": config(compose_dir=tmp_path).unit,
        "b": config(command=("true",)).unit,
        "c": config(compose_dir=tmp_path / "nowhere").unit,
    }
    found = {host: (key, reason) for host, key, reason in await problems(units)}
    assert found["a"][0] == found["c"][0] == "composeDir"
    assert "imagine" in found["a"][1]
    assert "there is no such file" in found["c"][1]
    assert set(found) == {"a", "c"}
    assert await problems({"b": units["b"]}) == []
