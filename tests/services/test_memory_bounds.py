"""What files and clients that lie cost each engine's image, in a container that has no more.

A container is given what it holds when idle, and `ALLOWANCE_BYTES` beside it: where anything takes
more than that the kernel ends it, whether or not the measured processes tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from . import test_engine_image, whisperx
from .greedy import GREEDY, Greedy, together, upload
from .harness import wait_until
from .lying_media import LIES
from .test_faster_whisper import ENGLISH
from .whisperx import docker

pytestmark = pytest.mark.docker

MB = 1 << 20
ALLOWANCE_BYTES = 300 * MB
MEMORY = """
import json, pathlib, sys
total = {"VmHWM": 0, "VmRSS": 0}
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if sys.argv[1:] == ["anew"]:
            (folder / "clear_refs").write_text("5")  # proc(5): the peak begins anew
        if "/dev/null" not in (folder / "cmdline").read_text() and int(folder.name) != OWN:
            lines = (folder / "status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines)
            for name in total:
                total[name] += int(fields[name].split()[0]) * 1024
    except (OSError, KeyError):
        pass  # it has just ended
print(json.dumps(total))
""".replace("OWN", "__import__('os').getpid()")
"""Runs in the container: sums over its processes."""


@dataclass(frozen=True, slots=True)
class Confined:
    """A service in a container that has no more memory than it may take."""

    name: str
    http: httpx.Client
    idle_bytes: int

    @property
    def port(self) -> int:
        """Where the service is on the loopback."""
        return self.http.base_url.port or 0

    @property
    def state(self) -> Any:
        """Docker's `State` of the container."""
        return json.loads(docker("inspect", self.name))[0]["State"]

    def grows_by(self, greedy: Greedy) -> int:
        """Return how many bytes more than when idle its processes have held meanwhile."""
        memory(self.name, "anew")
        greedy(self.port)
        return memory(self.name)["VmHWM"] - self.idle_bytes

    def hears(self) -> bool:
        """Say whether a plain recording is transcribed as ever."""
        data = ENGLISH.path.read_bytes()
        answer = self.http.post("/v1/audio/transcriptions", files={"file": ("a.wav", data)})
        return answer.status_code == 200 and answer.json()["text"] == ENGLISH.text


def memory(name: str, *arguments: str) -> dict[str, int]:
    told: dict[str, int] = json.loads(docker("exec", name, "python3", "-c", MEMORY, *arguments))
    return told


@contextmanager
def confined(name: str, http: httpx.Client) -> Iterator[Confined]:
    wait_until(lambda: http.get("/ready").status_code == 200, 180)
    assert Confined(name, http, 0).hears()
    idle = memory(name)["VmRSS"]
    limit = str(idle + ALLOWANCE_BYTES)
    docker("update", "--memory", limit, "--memory-swap", limit, name)
    service = Confined(name, http, idle)
    started = service.state["StartedAt"]
    yield service
    ended = service.state
    assert (ended["Running"], ended["OOMKilled"], ended["StartedAt"]) == (True, False, started)


Engine = Callable[[Path], AbstractContextManager[Confined]]


@cache
def image() -> str:
    """Build the first engine's image as its Compose file says."""
    test_engine_image.compose("speech-build", "build", timeout=900)
    return "faster-whisper-engine:latest"


@contextmanager
def faster_whisper(folder: Path) -> Iterator[Confined]:
    with (
        test_engine_image.running(image(), "--memory", "8g") as container,
        confined(container.name, container.http) as service,
    ):
        yield service


@contextmanager
def whisperx_engine(folder: Path) -> Iterator[Confined]:
    with (
        whisperx.running(folder, "--memory", "12g") as container,
        confined(container.name, container.http) as service,
    ):
        yield service


@pytest.fixture
def service(folder: Path) -> Iterator[Confined]:
    """A fresh one each time: the allocator keeps some of what others made it take."""
    with faster_whisper(folder) as service:
        yield service


def check(service: Confined, greedy: Greedy, what: str) -> None:
    grown = service.grows_by(greedy)
    print(f"{service.name} idle {service.idle_bytes >> 20} MB, {what}: +{grown >> 20} MB")
    assert grown < ALLOWANCE_BYTES
    wait_until(service.hears, 60)


@pytest.mark.parametrize("engine", [faster_whisper, whisperx_engine])
def test_lies_cost_little_one_by_one(engine: Engine, folder: Path) -> None:
    with engine(folder) as service:
        for name, lie in LIES.items():
            check(service, upload(lie()), name)


@pytest.mark.parametrize("name", ["24 channels", "65535 channels", "a huge cover", "64 channels"])
def test_a_lie_told_by_many_costs_little(service: Confined, name: str) -> None:
    check(service, partial(together, 12, upload(LIES[name]())), f"12 times {name}")


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_client_costs_little(service: Confined, name: str) -> None:
    check(service, GREEDY[name], name)
