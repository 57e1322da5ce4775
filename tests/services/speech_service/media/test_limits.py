"""Files that lie about themselves cost no more than honest ones, each in a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from speech_service.contract.errors import NoAudio
from speech_service.media import limits
from speech_service.media.audio import MediaFile

from ... import lying_media, media

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


def box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def track(samples: int, unit: int, *kinds: bytes) -> bytes:
    handlers = b"".join(box(b"hdlr", bytes(8) + kind) for kind in kinds)
    times = box(b"stts", numbers(0, 1, samples, unit))
    sizes = box(b"stsz", numbers(0, 1, samples))
    return box(b"trak", box(b"mdia", handlers + box(b"minf", box(b"stbl", times + sizes))))


MANY = 9_000_000
LARGE = (1).to_bytes(4, "big") + b"moov" + (16 + len(track(MANY, 2))).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (box(b"moov", track(MANY, 1024, b"soun")), False),
        (box(b"moov", track(MANY, 1, b"soun")), True),
        (box(b"moov", track(MANY, 1, b"soun", b"alis")), True),
        (box(b"moov", track(MANY, 1, b"soun", b"vide")), False),
        (box(b"moov", track(MANY, 1)), False),
        (box(b"moov", track(2_000_000, 1024, b"soun") * 4), True),
        (box(b"moov", track(2_000_000, 1024, b"soun") * 5), False),
        (box(b"free", b"x" * 99) + box(b"moov", track(MANY, 1024)), False),
        (box(b"moof", box(b"traf", box(b"trun", numbers(0, MANY)))), False),
        (LARGE + track(MANY, 2), False),
        (bytes(4) + b"moov" + track(MANY, 2), False),
        (box(b"moov", bytes(100)), True),
        (numbers(7) + b"moov" + track(MANY, 2), True),
        (numbers(2**32 - 1) + b"free", True),
        (b"RIFF", True),
        (b"", True),
    ],
    ids=lambda value: value if isinstance(value, bool) else len(value),
)
def test_an_index_is_counted_before_it_is_read(data: bytes, passes: bool) -> None:
    with nullcontext() if passes else pytest.raises(NoAudio, match="its index lists more"):
        limits.check_index(io.BytesIO(data))


def test_a_long_recording_of_bare_samples_is_heard() -> None:
    source = ["-f", "lavfi", "-i", "sine=d=200:r=48000", "-c:a", "pcm_s16le", "-f", "mov"]
    assert MediaFile(io.BytesIO(media.ffmpeg(*source))).probe(3600) == pytest.approx(200, abs=1)


def test_what_has_no_end_of_boxes_is_refused() -> None:
    with pytest.raises(NoAudio, match="its index lists more"):
        limits.check_index(io.BytesIO(box(b"free", b"") * 1_000_010))


def test_boxes_without_bottom_are_no_defect() -> None:
    limits.check_index(io.BytesIO(b"".join(numbers(2**31 - 1) + b"moov" for _ in range(5000))))
