"""What a recording may cost, whatever it says of itself.

A header of a few bytes can declare pictures, indexes, channels and rates whose memory nobody has.
So FFmpeg may have so much at once for anything (its own limit, `av_max_alloc`, for which PyAV has
no name), pictures are not decoded at all, and samples are bounded by what becomes of them.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract.engine import SAMPLE_RATE
from ..contract.errors import NoAudio

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

DEMUXER = {"max_pixels": "1", "max_streams": "256"}
"""Options of FFmpeg: it decodes a picture to learn its shape, which nobody asks for here."""

ALLOCATION_BYTES = 64 << 20
"""What FFmpeg may have in one piece; the index of ten hours of sound and video takes some 50 MB."""

_LOWEST_RATE, _HIGHEST_RATE = 4_000, 400_000
_MOST_CHANNELS = 24
"""More than that FFmpeg does not mix, nor every number below."""

_BLOCK_SAMPLES = 500_000
_BLOCK_BYTES = 8 << 20


@cache
def limit_allocations() -> bool:
    """Limit FFmpeg's allocations in this process; say whether its library was found."""
    import av.buffer  # noqa: F401

    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return False
    libraries = set(re.findall(r"(/\S*/libavutil[^/\s]*)$", maps, re.MULTILINE))
    for library in libraries:
        ctypes.CDLL(library).av_max_alloc(ctypes.c_size_t(ALLOCATION_BYTES))
    return bool(libraries)


def check_sound(rate: int, channels: int) -> None:
    """Check that samples can become speech.

    Raises:
        NoAudio: there are too few or too many of them in a second, or too many channels.
    """
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        accepted = f"{_LOWEST_RATE} to {_HIGHEST_RATE}"
        raise inconvertible(f"its audio has {rate} samples per second, not {accepted}")
    if channels > _MOST_CHANNELS:
        raise inconvertible(f"its audio has {channels} channels, more than {_MOST_CHANNELS}")


def inconvertible(reason: str = "its audio cannot be converted to one channel") -> NoAudio:
    """Return the error for sound that does not become speech as it is."""
    return NoAudio(
        f"{reason}; convert it before, with `ffmpeg -ac 1 -ar 16000` for example", "file"
    )


def block_samples(frame: AudioFrame) -> int:
    """Return how many samples of this kind are resampled at once; each call has its price.

    Neither they nor what becomes of them takes more than some megabytes.
    """
    width = frame.format.bytes * frame.layout.nb_channels
    seconds = _BLOCK_SAMPLES / SAMPLE_RATE
    return min(_BLOCK_SAMPLES, round(seconds * frame.sample_rate), _BLOCK_BYTES // width)
