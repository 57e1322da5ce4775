"""How many processors this process may use: fewer than the machine has, in a container."""

from __future__ import annotations

import math
import os
from pathlib import Path

_V2 = "cpu.max"
_V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the processors of the affinity mask, limited by the cgroup's quota, at least 1.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (`cpu.max`), scheduler/sched-bwc.rst.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return max(1, min(allowed, math.ceil(quota)) if quota else allowed)


def _quota(cgroup: Path) -> float | None:
    """Return the quota in processors, or None where there is none."""
    try:
        quota, period = (cgroup / _V2).read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / name).read_text().strip() for name in _V1)
        except OSError:
            return None
    if quota == "max" or int(quota) <= 0:
        return None
    return int(quota) / int(period)
