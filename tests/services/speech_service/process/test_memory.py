"""Memory that is not used any more goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from speech_service.process.memory import hand_back


class Node:
    def __init__(self) -> None:
        self.itself = self


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_what_nobody_refers_to_is_collected() -> None:
    gc.disable()
    try:
        node = weakref.ref(Node())
        assert node() is not None
        hand_back()
        assert node() is None
    finally:
        gc.enable()


def test_the_allocator_keeps_nothing() -> None:
    small = [bytes(1000) for _ in range(100_000)]
    last = bytes(1000)
    full = resident_bytes()
    del small
    hand_back()
    assert full - resident_bytes() > 50_000_000
    assert last


def test_a_system_with_another_allocator_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    hand_back()
