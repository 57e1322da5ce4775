"""How many stretches of speech are decoded at once: as many as there is memory for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speech_service.contract.errors import SpeechError

MOST = 16
"""More at once gain little, and the first progress comes later."""
_USABLE = 0.5
"""Of the free memory: the model's other half of the work and the other stages need some too."""
_STRETCH_BYTES = 100 << 20
_STRETCH_SHARE = 0.25
"""A stretch takes this and that share of the model's file (float16), measured with some air."""

# Limit, use, and what of the use is cache that gives way; cgroup v2, then v1.
_V2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
_V1 = (
    "memory/memory.limit_in_bytes",
    "memory/memory.usage_in_bytes",
    "memory/memory.stat",
    "total_inactive_file",
)


class OutOfMemory(SpeechError):
    """Not even one stretch of speech fits into memory."""

    status = 503
    code = "out_of_memory"


def fitting(free_bytes: int, model_bytes: int) -> int:
    """Return how many stretches fit into memory; at least 1.

    Args:
        free_bytes: of the device that decodes.
        model_bytes: size of the model's weights on disk.
    """
    each = _STRETCH_BYTES + model_bytes * _STRETCH_SHARE
    return max(1, min(MOST, int(free_bytes * _USABLE / each)))


def smaller(size: int) -> Iterator[int]:
    """Yield a size and, in case it is still too large, each half of the one before, down to 1."""
    while size >= 1:
        yield size
        size //= 2


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error of torch or CTranslate2 means that memory did not suffice."""
    return "out of memory" in str(error).lower()


def free_bytes(device: str, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the free memory of a device, as torch names it; for a CPU what the container may use.

    Source: Linux' proc(5), MemAvailable; cgroup-v2, memory.max.
    """
    if device != "cpu":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    available = _fields(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    return min([available, *_left_to_the_container(cgroup)])


def _left_to_the_container(cgroup: Path) -> Iterator[int]:
    """Yield what its limit leaves a container, if it has one."""
    for limit, used, statistics, cache in (_V2, _V1):
        try:
            left = int((cgroup / limit).read_text()) - int((cgroup / used).read_text())
            yield max(0, left + _fields(cgroup / statistics)[cache])
        except (OSError, ValueError, KeyError):
            continue  # no limit, or the other version


def _fields(file: Path) -> dict[str, int]:
    return {
        words[0]: int(words[1]) for line in file.read_text().splitlines() if (words := line.split())
    }
