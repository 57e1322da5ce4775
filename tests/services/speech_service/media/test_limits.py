"""Files that lie about themselves cost no more than honest ones, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from speech_service.contract.errors import NoAudio
from speech_service.media import limits

from ... import lying_media

MB = 1 << 20
HEARD = {"24 channels": "12.5 seconds", "a huge cover": "0.992687 seconds"}
REFUSALS = ("no_audio: ", "incomplete_file: ", "too_long: ")


@pytest.mark.parametrize("name", lying_media.LIES)
def test_a_lie_costs_little(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.services.lying_media", name],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    outcome, grown = json.loads(ended.stdout.splitlines()[-1])
    assert grown < 120 * MB
    assert outcome == HEARD.get(name) or outcome.startswith(REFUSALS)


@pytest.mark.parametrize(
    ("rate", "channels", "says"),
    [
        (3_999, 1, "3999 samples per second"),
        (400_001, 1, "400001 samples per second"),
        (0, 1, "0 samples per second"),
        (16_000, 25, "25 channels"),
    ],
)
def test_sound_that_cannot_become_speech_is_refused_with_the_cure(
    rate: int, channels: int, says: str
) -> None:
    with pytest.raises(NoAudio, match=says) as refused:
        limits.check_sound(rate, channels)
    assert "ffmpeg -ac 1 -ar 16000" in refused.value.message


@pytest.mark.parametrize(("rate", "channels"), [(4_000, 1), (400_000, 24), (8_000, 2)])
def test_what_people_record_passes(rate: int, channels: int) -> None:
    limits.check_sound(rate, channels)


def test_the_library_that_allocates_is_found() -> None:
    assert limits.limit_allocations()
