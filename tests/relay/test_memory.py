"""Giving memory back: when, and that it is gone."""

from __future__ import annotations

import pytest

from autostart_proxy.relay import memory
from autostart_proxy.relay.memory import LEFT, Memory


@pytest.mark.parametrize(
    ("clients", "times"),
    [
        ([0, 10 * LEFT, 10 * LEFT], 0),
        ([LEFT - 1, 0, LEFT - 1, 0], 0),
        ([LEFT, 0, 0, LEFT, 0], 2),
        ([3 * LEFT, 2 * LEFT, LEFT, 0], 3),
        ([LEFT, LEFT // 2, LEFT // 2, 0], 1),
    ],
)
def test_memory_is_given_back_whenever_many_have_left(
    monkeypatch: pytest.MonkeyPatch, clients: list[int], times: int
) -> None:
    given: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: given.append(True))
    watched = Memory()
    for each in clients:
        watched.watch(each)
    assert len(given) == times


def test_without_glibc_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """A C library without malloc_trim."""

        def __init__(self, name: None) -> None: ...

    monkeypatch.setattr("ctypes.CDLL", Other)
    assert not memory.give_back()
