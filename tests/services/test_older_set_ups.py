"""A set-up that was made for another server goes on as it is: its variables, its ports, its bot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

from .harness import wait_until
from .program import MODEL, Program, program
from .test_engine_image import docker, image, running  # noqa: F401 - fixture
from .test_faster_whisper import ALL, ENGLISH, plain
from .test_whisper_live_client import client, heard_by  # noqa: F401 - fixture

SHIPPED = Path(__file__).parents[2] / "services" / "faster-whisper"
HEALTHY = {"status": "healthy"}


@pytest.fixture(scope="module")
def live_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def http_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def hybrid(
    live_port: int, http_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """The engine with the variables of a WhisperLive server that has HTTP beside it alone."""
    settings = {
        "PORT_WHISPERLIVE": str(live_port),
        "HTTP_PORT": str(http_port),
        "FASTERWHISPER_MODEL": str(MODEL),
        "OMP_NUM_THREADS": "1",
        "WHISPER__MODEL": "",
    }
    with program(tmp_path_factory.mktemp("hybrid"), **settings) as started:
        wait_until(lambda: started.http.get("/ready").status_code == 200, 30)
        yield started


def test_whisper_lives_own_client_finds_it_on_its_port(
    hybrid: Program,
    live_port: int,
    client: Path,  # noqa: F811
) -> None:
    sample = ALL["english.wav"]
    assert heard_by(client, live_port, sample) == plain(sample.text)


def test_http_is_where_it_was(hybrid: Program, http_port: int) -> None:
    address = f"http://127.0.0.1:{http_port}/transcribe"
    answer = httpx.post(address, files={"file": ENGLISH.path.read_bytes()}, timeout=60)
    assert answer.json()["text"] == ENGLISH.text
    assert answer.json()["success"] is True


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain"])
def test_health_is_what_each_port_is_known_for(
    hybrid: Program, live_port: int, http_port: int, accept: str
) -> None:
    for port in (live_port, http_port):
        answer = httpx.get(f"http://127.0.0.1:{port}/health", headers={"accept": accept})
        assert (answer.status_code, answer.json()) == (200, HEALTHY)
    own = hybrid.http.get("/health", headers={"accept": accept})
    assert own.json()["service"] == "faster-whisper" if "json" in accept else own.text == "OK"


def test_its_model_is_that_of_the_older_name(hybrid: Program) -> None:
    assert hybrid.http.get("/ready").json()["loaded"] == [MODEL.name]


def test_a_port_that_is_taken_ends_the_program_and_is_named(tmp_path: Path, live_port: int) -> None:
    port = free_port()
    with program(tmp_path) as other:
        taken = str(other.http.base_url.port)
        ended = subprocess.run(
            [sys.executable, "-m", "faster_whisper_engine"],
            env={"UVICORN_PORT": str(port), "HTTP_PORT": taken, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert taken in ended.stderr


def test_a_port_that_has_two_names_is_opened_once(tmp_path: Path) -> None:
    port = str(free_port())
    with program(tmp_path, UVICORN_PORT=port, HTTP_PORT=port, PORT_WHISPERLIVE=port) as engine:
        assert engine.http.get("/health").json() == HEALTHY


def described(folder: Path, **env_file: str) -> Any:
    """The service as Compose has it with the second file and a `.env`, which names both."""
    for name in ("docker-compose.yml", "docker-compose.whisper-live.yml"):
        (folder / name).write_bytes((SHIPPED / name).read_bytes())
    second = (SHIPPED / "docker-compose.whisper-live.yml").read_text("utf-8")
    [both] = re.findall(r"^#\s+(COMPOSE_FILE=.*)$", second, re.MULTILINE)
    settings = "".join(f"{name}={value}\n" for name, value in env_file.items())
    (folder / ".env").write_text(f"{both}\n{settings}")
    shown = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)["services"]["faster-whisper"]


@pytest.mark.docker
def test_compose_publishes_the_ports_as_they_were(tmp_path: Path) -> None:
    def published(service: Any) -> set[tuple[str, str, int]]:
        return {(port["host_ip"], port["published"], port["target"]) for port in service["ports"]}

    local = "127.0.0.1"
    assert published(described(tmp_path)) == {
        (local, "5050", 5050),
        (local, "8001", 8000),
        (local, "8080", 8080),
    }
    moved = described(tmp_path, PORT_WHISPERLIVE="6050", HTTP_PORT="9080")
    assert (local, "6050", 6050) in published(moved)
    assert (local, "9080", 9080) in published(moved)
    assert moved["environment"]["PORT_WHISPERLIVE"] == "6050"


@pytest.mark.docker
def test_the_container_serves_the_older_clients(
    image: str,  # noqa: F811
    client: Path,  # noqa: F811
) -> None:
    ports = {"PORT_WHISPERLIVE": "5050", "HTTP_PORT": "8080"}
    options = [f"--env={name}={port}" for name, port in ports.items()]
    options += [f"--publish=127.0.0.1::{port}" for port in ports.values()]
    with running(image, *options) as container:
        wait_until(lambda: container.http.get("/ready").status_code == 200, 60)
        live, http = (
            docker("port", container.name, port).rpartition(":")[2] for port in ports.values()
        )
        assert heard_by(client, int(live), ENGLISH) == plain(ENGLISH.text)
        assert httpx.get(f"http://127.0.0.1:{http}/health").json() == HEALTHY
