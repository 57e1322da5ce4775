"""How many of one kind may be here, and what who comes later is told."""

from __future__ import annotations

import pytest
from speech_service.contract.errors import QueueFull
from speech_service.work.places import Places, Room


def test_who_finds_no_place_is_told_when_to_come_back_and_what_to_raise() -> None:
    places = Places(2, "uploads are being read", "MAX_UPLOADS", 7.5)
    with places.one(), places.one():
        assert places.taken == 2
        with pytest.raises(QueueFull, match="2 uploads.*MAX_UPLOADS") as refusal, places.one():
            raise AssertionError("there is no place")
        assert refusal.value.headers["Retry-After"] == "8"
    with places.one():
        assert places.taken == 1


def test_a_place_is_given_back_however_its_work_ends() -> None:
    places = Places(1, "uploads are being read", "MAX_UPLOADS", 1.0)
    with pytest.raises(ValueError, match="broken"), places.one():
        raise ValueError("broken")
    assert places.taken == 0


def test_what_is_kept_together_has_a_limit_and_is_given_back() -> None:
    room = Room(100, "the fields of forms", 7.5)
    with room.share() as mine:
        mine(60)
        with room.share() as others:
            others(30)
            with pytest.raises(QueueFull, match="the fields of forms take 90 bytes") as refusal:
                others(20)
            assert refusal.value.headers["Retry-After"] == "8"
            mine(10)
        assert room.taken == 70
    assert room.taken == 0
