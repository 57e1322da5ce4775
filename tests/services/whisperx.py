"""The WhisperX service in its container, with the models that were trained for tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from .harness import wait_until

SPEECH = Path(__file__).parents[1] / "speech"
SHIPPED = Path(__file__).parents[2] / "services" / "whisperx"
IMAGE = "whisperx-engine:latest"
PIPELINE = "pyannote/speaker-diarization-community-1"
UNPUNCTUATED = "unpunctuated"
"""A model that writes no punctuation: what it hears is one sentence, whoever speaks."""

CONFINED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
    *("--tmpfs", "/tmp:size=64m"),
)
"""The rights that the Compose file gives."""


def docker(*arguments: str, timeout: float = 180) -> str:
    """Run a command of Docker's; its standard output."""
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@cache
def build() -> str:
    """Build the image as the Compose file says, with torch from the usual index."""
    ended = subprocess.run(
        ["docker", "compose", "build"],
        cwd=SHIPPED,
        env=os.environ | {"TORCH_INDEX": ""},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert ended.returncode == 0, ended.stderr
    return IMAGE


def models(folder: Path) -> Path:
    """Put the trained models into a folder as the image looks for them under `/models`."""
    root = folder / "models"  # not the folder itself, which pytest lets nobody else read
    shutil.copytree(SPEECH / "model", root / "whisper" / "tiny")
    shutil.copytree(SPEECH / "model", root / "whisper" / UNPUNCTUATED)
    _leave_out_full_stops(root / "whisper" / UNPUNCTUATED / "tokenizer.json")
    shutil.copytree(SPEECH / "alignment", root / "alignment")
    shutil.copytree(SPEECH / "diarization", root / "diarization" / PIPELINE)
    return root


PROCESSES = """
import json, os, pathlib
found = []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        command = (folder / "cmdline").read_text()
        if int(folder.name) == os.getpid() or "healthcheck" in command:
            continue
        fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        mapped = {line.split()[-1] for line in (folder / "maps").read_text().splitlines()}
        found.append({
            "number": int(folder.name),
            "resident_bytes": int(fields["VmRSS"].split()[0]) * 1024,
            "libraries": [path for path in mapped if ".so" in path],
        })
    except (OSError, KeyError):
        pass  # it has just ended
print(json.dumps(found))
"""
"""Runs in the container: a kernel tells nobody else what a process has mapped."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a container; `libraries` are the shared ones, as paths."""

    number: int
    resident_bytes: int
    libraries: list[str]


def _leave_out_full_stops(tokenizer: Path) -> None:
    """Let a model write a blank where it means the end of a sentence."""
    described = json.loads(tokenizer.read_text("utf-8"))
    vocabulary = described["model"]["vocab"]
    vocabulary["."], vocabulary["Ġ"] = vocabulary["Ġ"], vocabulary["."]
    tokenizer.write_text(json.dumps(described, ensure_ascii=False), "utf-8")


@dataclass(frozen=True, slots=True)
class Container:
    """A running service."""

    name: str
    http: httpx.Client

    @property
    def state(self) -> Any:
        """Docker's `State` of it."""
        return json.loads(docker("inspect", self.name))[0]["State"]

    @property
    def log(self) -> str:
        """What it has written so far."""
        ended = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True)
        return ended.stdout + ended.stderr

    def processes(self) -> list[Process]:
        """What runs in the container, but for Docker's check of its health."""
        found = json.loads(docker("exec", self.name, "python3", "-c", PROCESSES))
        return [Process(**each) for each in found]

    def memory_bytes(self) -> int:
        """What the processes of the container hold, without the page cache."""
        return sum(process.resident_bytes for process in self.processes())

    def has_mapped(self, library: str) -> bool:
        """Say whether a process has loaded a library whose file is named like this."""
        return any(library in each for process in self.processes() for each in process.libraries)

    def until_ready(self) -> None:
        """Wait until a request would be served at once."""
        wait_until(lambda: self.http.get("/ready").status_code == 200, 180)


@contextmanager
def running(folder: Path, *options: str, **environment: str) -> Iterator[Container]:
    """Run the service with the rights of its Compose file, and yield it once it answers.

    Args:
        folder: holds the models.
        options: more of `docker run`.
        environment: the settings beside those that keep it offline and small.
    """
    name = f"whisperx-{uuid.uuid4().hex[:8]}"
    settings = {"WHISPERX__MODEL": "tiny", "HF_HUB_OFFLINE": "1", **environment}
    docker(
        *("run", "--detach", "--name", name, "--publish", "127.0.0.1::8000", *CONFINED),
        *("--volume", f"{folder}:/models:ro", *options),
        *(f"--env={key}={value}" for key, value in settings.items()),
        build(),
    )
    try:
        address = docker("port", name, "8000/tcp").splitlines()[0]
        with httpx.Client(base_url=f"http://{address}", timeout=180, trust_env=False) as http:
            wait_until(lambda: http.get("/health").status_code == 200, 60)
            yield Container(name, http)
    finally:
        docker("rm", "--force", "--volumes", name)


def sample(name: str) -> bytes:
    """A recording of the tests."""
    return (SPEECH / "samples" / name).read_bytes()


def transcribed(http: httpx.Client, data: bytes, **fields: str) -> dict[str, Any]:
    """What the service's own route makes of a recording."""
    answer = http.post("/transcribe", files={"file": ("a.wav", data)}, data=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def text(found: dict[str, Any]) -> str:
    """All that was said."""
    return " ".join(segment["text"] for segment in found["segments"])


def figure(http: httpx.Client, name: str) -> float:
    """One of the metrics."""
    [value] = re.findall(rf"^{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return float(value)
