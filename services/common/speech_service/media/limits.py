"""What a recording may cost, whatever it says of itself.

A header of a few bytes can declare pictures, indexes, channels and rates whose memory nobody has.
So FFmpeg may have so much at once for anything (its own limit, `av_max_alloc`, for which PyAV has
no name), pictures are not decoded at all, the indexes of an MP4 are counted before they are read,
and samples are bounded by what becomes of them.
"""

from __future__ import annotations

import ctypes
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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
_BLOCK_BYTES = 1 << 20


_INDEX_SAMPLES = 8_000_000
"""What all tracks of an MP4 may list, at some 35 bytes each: ten hours of video, three sounds."""
_INDEX_BOXES, _INDEX_DEPTH = 1_000_000, 16
_NESTING = frozenset(
    b"moov trak mdia minf stbl moof traf edts dinf mvex udta wave tref gmhd sinf schi".split()
)
_OTHER_MEDIA = frozenset({b"vide", b"m1a ", b"subp", b"clcp"})


class BinaryFile(Protocol):
    """What can be read at any place."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.IOBase.seek`."""

    def read(self, size: int) -> bytes:
        """See `io.RawIOBase.read`."""


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


def check_index(file: BinaryFile) -> None:
    """Check that an MP4 does not list more samples than a recording has; pass any other file.

    FFmpeg makes room for each sample that a track declares (ISO 14496-12, 8.7.3 and 8.8.8), though
    none of them be there. Of bare samples, each a unit of time, it takes a thousand for one.

    Args:
        file: is left where it was read last.
    Raises:
        NoAudio: it lists too many, or has too many boxes to be looked at.
    """
    total = 0
    bare, media = False, set[bytes]()
    end = file.seek(0, io.SEEK_END)
    for number, (kind, head) in enumerate(_boxes(file, 0, end, _INDEX_DEPTH)):
        match kind:
            case b"trak" | b"moof":
                bare, media = False, set()
            case b"hdlr":
                media.add(head[8:12])
            case b"stts":
                bare = _number(head, 4) == _number(head, 12) == 1
            case b"stsz" | b"stz2":
                sound = b"soun" in media and not media & _OTHER_MEDIA
                listed = _number(head, 8)
                total += listed // 1000 if bare and sound else listed
            case b"trun":
                total += _number(head, 4)
        if total > _INDEX_SAMPLES or number > _INDEX_BOXES:
            raise NoAudio("its index lists more than a recording can have", "file")


def _boxes(file: BinaryFile, start: int, end: int, depth: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the boxes of a file, those in a box behind it: kind and first 16 bytes of content."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(32)
        size, begin = _number(head, 0), 8
        if size == 1:
            size, begin = int.from_bytes(head[8:16], "big"), 16
        following = start + size if size else end
        kind = head[4:8]
        yield kind, head[begin : begin + 16]
        if size and size < begin:
            return
        if kind in _NESTING and depth:
            yield from _boxes(file, start + begin, min(following, end), depth - 1)
        start = following


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "big")
