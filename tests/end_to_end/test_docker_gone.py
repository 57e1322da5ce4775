"""The Docker Engine is gone while a service is warm, and comes back."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from autostart_proxy.lifecycle.patience import STOP_AGAIN_SECONDS
from tests.backends.faulty_socket import FaultySocket
from tests.end_to_end.parts import PATIENCE_SECONDS, Report, run
from tests.end_to_end.stage import Stage, sign_certificate, staged  # noqa: F401 - a fixture

pytestmark = pytest.mark.docker

HOST = "service.example.org"
QUIET = "quiet.example.org"
OTHER = "other.example.org"


class EngineSocket:
    """The socket by which the proxy alone reaches the engine, on an event loop of its own."""

    def __init__(self, path: Path) -> None:
        self._relay = FaultySocket(path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.address = self._relay.address
        self.appear()

    def appear(self) -> None:
        self._do(self._relay.appear())

    def vanish(self) -> None:
        """As when the daemon ends: nobody listens any more, and what was open is cut."""
        self._do(self._relay.vanish())

    def end(self) -> None:
        self.vanish()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, call: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(call, self._loop).result(PATIENCE_SECONDS)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineSocket]:
    made = EngineSocket(tmp_path / "docker.sock")
    yield made
    made.end()


@pytest.fixture
def stage(
    engine: EngineSocket, tmp_path: Path, certificate: tuple[Path, ssl.SSLContext]
) -> Iterator[Stage]:
    with staged(tmp_path, certificate) as stage:
        stage.proxy.environment["DOCKER_HOST"] = engine.address
        yield stage


def test_a_warm_service_goes_on_without_the_engine_and_sleeps_once_it_is_back(
    stage: Stage, engine: EngineSocket
) -> None:
    project = stage.service(HOST, idleTimeout="1s")
    stage.start()
    log = stage.proxy.log
    report = Report(stage.through_nginx, HOST)
    engine.vanish()
    log.until("WARNING event stream broken")
    assert stage.through_nginx.get(HOST).life == report.life
    project.allow("report")
    assert report.rest() == b"done\n"

    # The idle time ends, and nobody can be told to stop: the service stays, and is used on.
    told = r"ERROR failure service=\S+ error=docker_unavailable .*docker\.sock"
    log.until(told)
    stage.proxy.until(HOST, state="ready", leases=0)
    assert "not available" in stage.proxy.status(HOST)["why"]
    assert stage.through_nginx.get(HOST).life == report.life
    process, began = psutil.Process(stage.proxy.process.pid), time.monotonic()
    used = sum(process.cpu_times()[:2])
    time.sleep(3)
    assert sum(process.cpu_times()[:2]) - used < 0.05 * (time.monotonic() - began)
    log.until(told, times=2)
    tries = [datetime.fromisoformat(m[1]) for m in log.find(r"^(\S+) INFO state .*to=stopping")]
    assert all(b - a > timedelta(seconds=0.9 * STOP_AGAIN_SECONDS) for a, b in pairwise(tries))
    assert len(log.find("event stream broken")) == 1

    engine.appear()
    project.until_stopped()
    stage.proxy.until(HOST, state="stopped", why="idle")
    assert project.starts() == 1
    assert stage.through_nginx.get(HOST).life != report.life


def test_what_happened_while_the_engine_was_gone_is_noticed_once_it_is_back(
    stage: Stage, engine: EngineSocket
) -> None:
    warm, asleep = [stage.service(host) for host in (HOST, QUIET)], stage.service(OTHER)
    stage.start()
    lives = [stage.through_nginx.get(host).life for host in (HOST, QUIET)]
    engine.vanish()
    stage.proxy.log.until("WARNING event stream broken")
    for each in warm:
        run("docker", "compose", "stop", folder=each.folder)
    run("docker", "compose", "start", folder=asleep.folder)
    lost = stage.through_nginx.get(HOST)
    assert (lost.status, lost.json()["error"]) == (503, "docker_unavailable")

    engine.appear()
    stage.proxy.log.until(f"state service={QUIET} from=ready to=stopped")
    stage.proxy.until(OTHER, state="ready")
    assert stage.proxy.status(OTHER)["sleeps_in_seconds"] > 0
    for host, project, life in zip((HOST, QUIET), warm, lives, strict=True):
        assert stage.through_nginx.get(host).life not in (None, life)
        assert project.starts() == 2
    assert asleep.starts() == 1
