"""The image of the engine, as its Compose file builds it: small rights, clean start, clean end."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from . import media
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


@dataclass(frozen=True, slots=True)
class Container:
    """A running container, and a client of the service in it."""

    name: str
    http: httpx.Client

    def state(self) -> Any:
        return json.loads(docker("inspect", self.name))[0]["State"]

    def run(self, *command: str) -> str:
        """What a command inside prints."""
        return docker("exec", self.name, *command)

    def most_memory(self) -> int:
        """Bytes that the service has had in memory at once."""
        found = re.search(r"VmHWM:\s+(\d+) kB", self.run("cat", "/proc/1/status"))
        assert found
        return int(found[1]) * 1024


@contextmanager
def running(image: str, *options: str) -> Iterator[Container]:
    """A container with the rights of the Compose file on a port of its own; it ends cleanly."""
    name = f"speech-{uuid.uuid4().hex[:8]}"
    docker(
        *("run", "--detach", "--name", name, "--publish", "127.0.0.1::8000", "--read-only"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
        *("--tmpfs", "/tmp:size=64m", "--volume", f"{MODEL}:/models/tiny:ro"),
        *("--env", "WHISPER__MODEL=/models/tiny", "--env", "HF_HUB_OFFLINE=1"),
        *("--health-interval", "1s", *options, image),
    )
    try:
        address = docker("port", name, "8000/tcp").splitlines()[0]
        with httpx.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as http:
            container = Container(name, http)
            wait_until(lambda: container.state()["Health"]["Status"] == "healthy", 60)
            yield container
        docker("stop", "--time", "30", name)
        ended = container.state()
        assert (ended["ExitCode"], ended["OOMKilled"]) == (0, False)
    finally:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    with running(image) as container:
        wait_until(lambda: container.http.get("/ready").status_code == 200, 60)
        yield container


def transcribe(container: Container, data: bytes, **headers: str) -> httpx.Response:
    return container.http.post(
        "/v1/audio/transcriptions", files={"file": ("a.wav", data)}, headers=headers
    )


def test_the_compose_file_gives_it_no_rights_and_one_port_of_the_loopback() -> None:
    described = json.loads(compose("speech-described", "config", "--format", "json"))
    settings = described["services"]["faster-whisper"]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["restart"] == "no"
    assert settings["ports"][0]["host_ip"] == "127.0.0.1"
    assert settings["ports"][0]["published"] == "8001"


def test_it_hears_every_word(container: Container) -> None:
    assert transcribe(container, ENGLISH.path.read_bytes()).json()["text"] == ENGLISH.text


def test_a_large_upload_waits_on_disk(container: Container) -> None:
    answer = transcribe(container, ENGLISH.path.read_bytes() + bytes(80_000_000))
    assert answer.status_code in (200, 413)


def test_it_has_no_rights(container: Container) -> None:
    assert container.run("id", "-u") == "10001"
    status = container.run("cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    writing = subprocess.run(["docker", "exec", container.name, "touch", "/x"], capture_output=True)
    assert writing.returncode != 0


def test_no_torch_and_no_build_tools_are_inside(container: Container) -> None:
    names = set(container.run("ls", "/opt/engine/lib/python3.11/site-packages").split())
    assert "faster_whisper" in names
    assert not names & {"torch", "pip", "setuptools", "pytest"}


def test_a_job_that_runs_is_finished_before_it_ends(image: str) -> None:
    times = 10
    with running(image) as container, ThreadPoolExecutor(1) as beside:
        answer = beside.submit(transcribe, container, media.wav(np.tile(ENGLISH.samples(), times)))
        wait_until(lambda: "speech_jobs_running 1.0" in container.http.get("/metrics").text, 30)
        docker("kill", "--signal", "TERM", container.name)
        assert answer.result().status_code == 200
        said = answer.result().json()["text"]
        assert said.count("Open garden") == times
        assert said.endswith("world nine.")
        wait_until(lambda: container.state()["Status"] == "exited", 30)


def test_a_key_is_needed_and_docker_finds_it_healthy_all_the_same(image: str) -> None:
    with running(image, "--env", "API_KEY=s3cret") as container:
        assert transcribe(container, ENGLISH.path.read_bytes()).status_code == 401
        assert container.http.get("/").status_code == 200
        allowed = transcribe(container, ENGLISH.path.read_bytes(), authorization="Bearer s3cret")
        assert allowed.json()["text"] == ENGLISH.text
        logs = subprocess.run(["docker", "logs", container.name], capture_output=True).stderr
        assert b"status=401" in logs
        assert b"s3cret" not in logs


def test_its_log_has_the_times_of_the_zone_that_is_asked_for(image: str) -> None:
    with running(image, "--env", "TZ=Asia/Kabul") as container:
        [first, *_] = subprocess.run(
            ["docker", "logs", container.name], capture_output=True, text=True
        ).stderr.splitlines()
        logged = datetime.fromisoformat(first[:19] + "+04:30")
        assert abs(datetime.now(UTC) - logged) < timedelta(minutes=5)


SMALL_DISK = ("--tmpfs", "/var/tmp/uploads:size=8m,uid=10001")


def test_a_full_disk_is_named_and_what_was_written_is_gone(image: str) -> None:
    with running(image, *SMALL_DISK) as container:
        answer = transcribe(container, bytes(20_000_000))
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "no_space")
        assert container.run("df", "--output=used", "/var/tmp/uploads").split() == ["Used", "0"]
        assert transcribe(container, ENGLISH.path.read_bytes()).json()["text"] == ENGLISH.text


def test_ten_hours_in_a_small_file_are_refused_in_little_memory(image: str) -> None:
    minute = media.ffmpeg("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "60", "-f", "adts")
    with running(image, *SMALL_DISK, "--env", "MAX_AUDIO_SECONDS=3600") as container:
        wait_until(lambda: container.http.get("/ready").status_code == 200, 60)
        before = container.most_memory()
        answer = transcribe(container, minute * 600)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_long")
        assert container.most_memory() - before < 100_000_000
