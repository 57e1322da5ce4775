"""How many stretches of speech are decoded at once, from the memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from whisperx_engine.memory import MOST, fitting, free_bytes, out_of_memory, smaller

MB, GB = 1 << 20, 1 << 30
UNLIMITED = 9223372036854771712


@pytest.fixture
def machine(tmp_path: Path) -> int:
    """What the machine has free, without a container."""
    return free_bytes("cpu", tmp_path)


def test_much_memory_gives_the_most_and_none_gives_one() -> None:
    assert fitting(64 * GB, 140 * MB) == MOST
    assert fitting(0, 140 * MB) == 1


def test_a_larger_model_leaves_room_for_fewer() -> None:
    small, large = fitting(3 * GB, 460 * MB), fitting(3 * GB, 3 * GB)
    assert MOST > small > large >= 1


def test_what_was_too_much_is_halved_until_one_is_left() -> None:
    assert list(smaller(10)) == [10, 5, 2, 1]


def test_only_a_lack_of_memory_is_taken_for_one() -> None:
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not out_of_memory(RuntimeError("invalid device ordinal"))


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_a_container_may_use_what_its_limit_leaves_and_its_cache(
    version: str, tmp_path: Path, machine: int
) -> None:
    v2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
    folder = "memory/memory"
    v1 = (
        *(f"{folder}.limit_in_bytes", f"{folder}.usage_in_bytes", f"{folder}.stat"),
        "total_inactive_file",
    )
    limit, used, statistics, cache = v2 if version == "v2" else v1
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("100000000\n")
    (tmp_path / used).write_text("70000000\n")
    (tmp_path / statistics).write_text(f"anon 1\n{cache} 5000000\n")
    assert machine > 100 * MB
    assert free_bytes("cpu", tmp_path) == 35_000_000


@pytest.mark.parametrize("limit", ["max", str(UNLIMITED)])
def test_without_a_limit_the_machine_decides(limit: str, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("70000000\n")
    (tmp_path / "memory.stat").write_text("inactive_file 5000000\n")
    assert free_bytes("cpu", tmp_path) > 100 * MB
