"""A setting that is named anywhere works everywhere: README, settings, Compose file, `.env`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from faster_whisper_engine.settings import FasterWhisperSettings
from pydantic import AliasChoices
from speech_service.contract.settings import Settings
from whisperx_engine.settings import WhisperXSettings

SERVICES = Path(__file__).parents[2] / "services"
OF_LIBRARIES = {"HF_ENDPOINT", "TZ"}
"""What no code of ours reads: the hub's library and the C library do."""
NAME = re.compile(r"`([A-Z][A-Z0-9_]+)`")


@dataclass(frozen=True)
class Shipped:
    """An engine as it is shipped: its folder, its settings, and their variables by field."""

    folder: Path
    kind: type[Settings]

    @property
    def readme(self) -> str:
        return (self.folder / "README.md").read_text("utf-8")

    @property
    def compose(self) -> Any:
        [service] = yaml.safe_load((self.folder / "docker-compose.yml").read_text())[
            "services"
        ].values()
        return service

    @property
    def example(self) -> list[str]:
        lines = (self.folder / ".env.example").read_text().splitlines()
        return [line.partition("=")[0] for line in lines if line and not line.startswith("#")]

    def documented(self) -> set[str]:
        """The variables in the README's table of settings."""
        section = self.readme.partition("\n## Settings\n")[2].partition("\n## ")[0]
        cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        return {name for cell in cells for name in NAME.findall(cell)}

    def spellings(self) -> Iterator[tuple[str, ...]]:
        """The names of each setting, the one to be used first."""
        for name, field in self.kind.model_fields.items():
            alias = field.validation_alias or name.upper()
            choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
            yield tuple(str(choice) for choice in choices)

    def variables(self) -> set[str]:
        return OF_LIBRARIES | {name for names in self.spellings() for name in names}

    def in_the_container(self, folder: Path, env_file: dict[str, str]) -> Any:
        """The service as Compose understands it, with a file `.env` of this content."""
        (folder / ".env").write_text("".join(f"{key}={env_file[key]}\n" for key in env_file))
        known = self.variables() | set(self.example)
        described = subprocess.run(
            ["docker", "compose", "config", "--format", "json"],
            cwd=self.deployed(folder),
            env={name: value for name, value in os.environ.items() if name not in known},
            capture_output=True,
            text=True,
        )
        assert described.returncode == 0, described.stderr
        [service] = json.loads(described.stdout)["services"].values()
        return service

    def deployed(self, folder: Path) -> Path:
        """A folder with the Compose file alone, as users have it."""
        (folder / "docker-compose.yml").write_bytes(
            (self.folder / "docker-compose.yml").read_bytes()
        )
        return folder


PLAIN = Shipped(SERVICES / "faster-whisper", FasterWhisperSettings)
ALIGNED = Shipped(SERVICES / "whisperx", WhisperXSettings)

engines = pytest.mark.parametrize("engine", [PLAIN, ALIGNED], ids=lambda each: each.folder.name)


@engines
def test_compose_passes_on_what_the_settings_read_and_nothing_else(engine: Shipped) -> None:
    assert set(engine.compose["environment"]) == engine.variables()


@engines
def test_the_readme_names_every_setting(engine: Shipped) -> None:
    shared = PLAIN.documented() if "(../faster-whisper/README.md#settings)" in engine.readme else {}
    missing = {names[0] for names in engine.spellings()} - engine.documented() - set(shared)
    assert missing == set()


@engines
def test_what_the_readme_names_is_a_setting(engine: Shipped) -> None:
    assert engine.documented() <= engine.variables()


@engines
def test_what_the_example_names_reaches_the_service_or_its_build(engine: Shipped) -> None:
    building = engine.compose["build"].get("args", {})
    assert set(engine.example) <= engine.variables() | set(building)
    assert {"HF_TOKEN", "TZ"} <= set(engine.example)


@pytest.mark.docker
@engines
def test_every_variable_of_the_env_file_is_in_the_container(
    engine: Shipped, tmp_path: Path
) -> None:
    given = dict.fromkeys(engine.variables(), "17") | {"PUBLISHED_ON": "127.0.0.17"}
    assert engine.in_the_container(tmp_path, given)["environment"] == given


@pytest.mark.docker
@engines
@pytest.mark.parametrize("env_file", [{}, {"UVICORN_PORT": "", "HF_ENDPOINT": "", "TZ": ""}])
def test_what_is_not_set_has_its_default(
    engine: Shipped, env_file: dict[str, str], tmp_path: Path
) -> None:
    service = engine.in_the_container(tmp_path, env_file)
    set_by_compose = {"HF_ENDPOINT", "PUBLISHED_ON", "UVICORN_HOST", "UVICORN_PORT"}
    given = {name for name, value in service["environment"].items() if value}
    assert given == set_by_compose, "all else would come to the service as text"
    assert service["ports"][0]["target"] == int(service["environment"]["UVICORN_PORT"]) == 8000


@pytest.mark.docker
@engines
def test_the_published_port_leads_to_wherever_the_service_listens(
    engine: Shipped, tmp_path: Path
) -> None:
    [before] = engine.in_the_container(tmp_path, {})["ports"]
    [port] = engine.in_the_container(tmp_path, {"UVICORN_PORT": "9000"})["ports"]
    assert (port["published"], port["target"]) == (before["published"], 9000)
    assert port["host_ip"] == before["host_ip"] == "127.0.0.1"


@pytest.mark.docker
@engines
def test_a_service_knows_where_it_is_published(engine: Shipped, tmp_path: Path) -> None:
    service = engine.in_the_container(tmp_path, {"PUBLISHED_ON": "192.0.2.7"})
    assert service["ports"][0]["host_ip"] == service["environment"]["PUBLISHED_ON"] == "192.0.2.7"


@pytest.mark.docker
@engines
@pytest.mark.parametrize(("own", "docker"), [("", "30s"), ("40", "45s"), ("600", "10m5s")])
def test_docker_gives_longer_than_the_service_takes_to_end(
    engine: Shipped, own: str, docker: str, tmp_path: Path
) -> None:
    wish = {"UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": own}
    assert engine.in_the_container(tmp_path, wish)["stop_grace_period"] == docker


@pytest.mark.docker
@engines
@pytest.mark.parametrize(("own", "given"), [("", None), ("3g", 3 << 30)])
def test_a_container_has_a_memory_limit_that_the_readme_explains(
    engine: Shipped, own: str, given: int | None, tmp_path: Path
) -> None:
    service = engine.in_the_container(tmp_path, {"MEMORY_LIMIT": own})
    explained = re.search(r"The container may take (\d+) GB, swap included", engine.readme)
    assert explained is not None
    limit = given or int(explained[1]) << 30
    assert int(service["mem_limit"]) == int(service["memswap_limit"]) == limit
