"""The image of the engine, as its Compose file builds it: small rights, clean start, clean end."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .harness import wait_until
from .program import MODEL
from .test_faster_whisper import ENGLISH

pytestmark = pytest.mark.docker

FOLDER = Path(__file__).parents[2] / "services" / "faster-whisper"


def docker(*arguments: str, timeout: float = 120) -> str:
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def compose(project: str, *arguments: str, timeout: float = 120) -> str:
    files = ["-f", str(FOLDER / "docker-compose.yml"), "-f", "-"]
    override = {
        "services": {
            "faster-whisper": {
                "container_name": project,
                "environment": {"WHISPER__MODEL": "/models/tiny", "HF_HUB_OFFLINE": "1"},
                "volumes": [f"{MODEL}:/models/tiny:ro"],
            }
        }
    }
    ended = subprocess.run(
        ["docker", "compose", "-p", project, *files, *arguments],
        input=json.dumps(override),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def image() -> str:
    compose("speech-build", "build", timeout=900)
    return "faster-whisper-engine:latest"


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """A running container with the rights of the Compose file, on a port of its own."""
    name = f"speech-{uuid.uuid4().hex[:8]}"
    settings = json.loads(compose(name, "config", "--format", "json"))["services"]["faster-whisper"]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["restart"] == "no"
    assert settings["ports"][0]["host_ip"] == "127.0.0.1"
    assert settings["ports"][0]["published"] == "8001"
    docker(
        *("run", "--detach", "--name", name, "--publish", "127.0.0.1::8000", "--read-only"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
        *("--tmpfs", "/tmp:size=64m", "--volume", f"{MODEL}:/models/tiny:ro"),
        *("--env", "WHISPER__MODEL=/models/tiny", "--env", "HF_HUB_OFFLINE=1"),
        *("--health-interval", "1s", image),
    )
    yield name
    docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def http(container: str) -> Iterator[httpx.Client]:
    address = docker("port", container, "8000/tcp").splitlines()[0]
    with httpx.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as client:
        wait_until(lambda: client.get("/ready").status_code == 200, 60)
        yield client


def state(container: str) -> Any:
    return json.loads(docker("inspect", container))[0]["State"]


def test_it_hears_every_word(http: httpx.Client) -> None:
    answer = http.post("/v1/audio/transcriptions", files=ENGLISH.upload())
    assert answer.json()["text"] == ENGLISH.text


def test_a_large_upload_waits_on_disk(http: httpx.Client) -> None:
    files = {"file": ("a.wav", ENGLISH.path.read_bytes() + bytes(80_000_000))}
    assert http.post("/v1/audio/transcriptions", files=files).status_code in (200, 413)


def test_it_has_no_rights(http: httpx.Client, container: str) -> None:
    assert docker("exec", container, "id", "-u") == "10001"
    status = docker("exec", container, "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    writing = subprocess.run(["docker", "exec", container, "touch", "/x"], capture_output=True)
    assert writing.returncode != 0


def test_no_torch_and_no_build_tools_are_inside(container: str, http: httpx.Client) -> None:
    packages = docker("exec", container, "ls", "/opt/engine/lib/python3.11/site-packages")
    names = set(packages.split())
    assert "faster_whisper" in names
    assert not names & {"torch", "pip", "setuptools", "pytest"}


def test_docker_finds_it_healthy(container: str, http: httpx.Client) -> None:
    wait_until(lambda: state(container)["Health"]["Status"] == "healthy", 30)


def test_it_ends_cleanly(container: str, http: httpx.Client) -> None:
    docker("stop", "--time", "30", container)
    ended = state(container)
    assert (ended["ExitCode"], ended["OOMKilled"]) == (0, False)
