"""The wall clock jumps, as when a machine hears the true time long after its start."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.end_to_end.parts import Report, installed, run, until
from tests.end_to_end.stage import Stage, set_stage, sign_certificate  # noqa: F401 - fixtures

pytestmark = pytest.mark.docker

USED = "used.example.org"
IDLE = "idle.example.org"
WAKING = "waking.example.org"


class WallClock:
    """What a process takes for the time of day; its CLOCK_MONOTONIC stays true."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "clock"
        self.jump("+0")
        library = run(installed("faketime"), "-m", "-f", "+0", "printenv", "LD_PRELOAD")
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset: str) -> None:
        """Be so far from the true time from now on, such as "-1d"."""
        self._offset.with_suffix(".new").write_text(offset)
        self._offset.with_suffix(".new").rename(self._offset)


@pytest.mark.parametrize("days", [1, -1], ids=["forward", "back"])
def test_nothing_ends_early_or_late_when_the_clock_jumps_a_day(stage: Stage, days: int) -> None:
    used = stage.service(USED, idleTimeout="1s")
    idle = stage.service(IDLE, idleTimeout="3s")
    waking = stage.service(WAKING, allowed=("end",))
    clock = WallClock(stage.folder)
    stage.proxy.environment = clock.environment
    stage.start()
    proxy, log = stage.proxy, stage.proxy.log
    report = Report(stage.through_nginx, USED)
    held = stage.soon(stage.through_nginx.get, WAKING)
    until(waking.runs, "the container starts")
    last = stage.through_nginx.get(IDLE)

    clock.jump(f"{days:+}d")
    assert stage.through_nginx.get(USED).life == report.life
    line = log.until(rf"^(\S+) INFO request service={USED} ")
    off = datetime.fromisoformat(line[1]) - datetime.now(UTC)
    assert abs(off - timedelta(days=days)) < timedelta(hours=1), "the proxy sees the jump"
    for host in (USED, IDLE, WAKING):
        assert 0 <= proxy.status(host)["since_seconds"] < 3600, "of the clock that does not jump"

    log.until(f"state service={IDLE} from=ready to=draining")
    assert time.monotonic() - last.began >= 3
    idle.until_stopped()
    assert proxy.status(USED)["leases"] == 1, "open for longer than its idle time"
    assert proxy.status(WAKING)["held"] == 1
    waking.allow("listen")
    assert held.result().status == 200
    used.allow("report")
    finished = time.monotonic()
    assert report.rest() == b"done\n"
    log.until(f"state service={USED} from=ready to=draining")
    assert time.monotonic() - finished >= 1
    used.until_stopped()
    assert (used.starts(), idle.starts(), waking.starts()) == (1, 1, 1)
    for line in log.find(r" held_ms=(\S+) total_ms=(\S+)"):
        assert 0 <= float(line[1]) <= float(line[2]) < 3_600_000
