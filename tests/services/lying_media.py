"""Media files of which no word is true, and what decoding one of them costs.

`python -m tests.services.lying_media NAME` decodes one as the service does and prints what came of
it and by how many bytes the process grew meanwhile.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

from speech_service.contract.errors import SpeechError
from speech_service.media.audio import MediaFile

LONGEST_SECONDS = 36_000.0
PCM, FLOAT = 1, 3


def wav(rate: int, channels: int, bits: int, data: bytes, kind: int = PCM) -> bytes:
    width = channels * bits // 8
    form = struct.pack(
        "<HHIIHH", kind, channels, rate, rate * width & 0xFFFFFFFF, width & 0xFFFF, bits
    )
    chunks = b"fmt \x10\0\0\0" + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def au(rate: int, data: bytes) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, len(data), 2, rate, 1) + data


def aiff(rate: bytes, data: bytes) -> bytes:
    """`rate` is a number of 80 bits."""
    common = b"COMM" + struct.pack(">IHIH", 18, 1, len(data), 8) + rate
    sound = b"SSND" + struct.pack(">III", len(data) + 8, 0, 0) + data
    return b"FORM" + struct.pack(">I", 4 + len(common) + len(sound)) + b"AIFF" + common + sound


def flac(rate: int, samples: int) -> bytes:
    numbers = rate << 44 | 15 << 36 | samples  # one channel of 16 bits
    info = struct.pack(">HH6x", 4096, 4096) + numbers.to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80\0\0\x22" + info + b"\xff\xf8\x69\x08\0" + bytes(1000)


def mp3(cover: bytes) -> bytes:
    """A second of silence, and a picture in front."""
    frame = b"\xff\xfb\x10\xc4" + bytes(100)
    picture = b"\0image/png\0\x03\0" + cover
    tag = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + tag + frame * 38


def png(width: int, height: int) -> bytes:
    """A transparent picture."""
    packer, row = zlib.compressobj(9), bytes(1 + width * 4)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def mp4(samples: int, tracks: int = 1) -> bytes:
    """An index of samples of one byte each, of which there are a thousand."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I", 8 + len(body)) + kind + body

    def full(kind: bytes, *numbers: int) -> bytes:
        return box(kind, bytes(4), struct.pack(f">{len(numbers)}I", *numbers))

    kind = box(b"ftyp", b"M4A \0\0\0\0mp42")
    decoder = bytes.fromhex("038080802200000004808080144015000000000001f4000001f400058080800211 90")
    esds = box(b"esds", bytes(4), decoder)
    sound = bytes(6) + b"\0\1" + bytes(8) + struct.pack(">HHII", 1, 16, 0, 16_000 << 16)
    described = box(b"stsd", bytes(4), struct.pack(">I", 1), box(b"mp4a", sound, esds))
    table = box(
        b"stbl",
        described,
        full(b"stts", 1, samples, 1024),
        full(b"stsc", 1, 1, samples, 1),
        full(b"stsz", 1, samples),
        full(b"stco", 1, len(kind) + 8),
    )
    handler = box(b"hdlr", bytes(8), b"soun", bytes(13))
    media = box(b"mdia", full(b"mdhd", 0, 0, 16_000, 1000, 0), handler, box(b"minf", table))
    track = box(b"trak", full(b"tkhd", 0, 0, 1, 0, 1000, *([0] * 15)), media)
    head = full(b"mvhd", 0, 0, 1000, 1000, *([0] * 20))
    return kind + box(b"mdat", bytes(1000)) + box(b"moov", head, track * tracks)


LIES: dict[str, Callable[[], bytes]] = {
    "a sample per second": lambda: wav(1, 1, 8, b"\x80" * 35_900),
    "a hundred samples per second": lambda: wav(100, 1, 8, b"\x80" * 900_000),
    "too few samples per second": lambda: wav(3_999, 1, 8, b"\x80" * 240_000),
    "two thousand million per second": lambda: wav(2**31 - 1, 1, 8, b"\x80" * 1_000_000),
    "no samples per second": lambda: wav(0, 1, 8, b"\x80" * 9_000),
    "a sample per second, AU": lambda: au(1, bytes(35_900)),
    "a sample per second, AIFF": lambda: aiff(bytes.fromhex("3fff8000000000000000"), bytes(9_000)),
    "infinitely many per second": lambda: aiff(bytes.fromhex("7fff0000000000000000"), bytes(9_000)),
    "a sample per second, FLAC": lambda: flac(1, 35_900),
    "days of FLAC": lambda: flac(16_000, 2**36 - 1),
    "64 channels": lambda: wav(48_000, 64, 64, bytes(64 * 8 * 60_000), FLOAT),
    "24 channels": lambda: wav(48_000, 24, 64, bytes(24 * 8 * 600_000), FLOAT),
    "65535 channels": lambda: wav(48_000, 65_535, 8, bytes(65_535 * 60)),
    "a huge cover": lambda: mp3(png(16_000, 16_000)),
    "a huge index": lambda: mp4(50_000_000),
    "a hundred indexes": lambda: mp4(2_500_000, 100),
}


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(name: str) -> None:
    import av  # noqa: F401
    import numpy  # noqa: F401, ICN001

    data = LIES[name]()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins anew
    before = _peak_bytes()
    try:
        recording = MediaFile(io.BytesIO(data))
        recording.probe(LONGEST_SECONDS)
        samples = sum(len(block) for block in recording.decode(LONGEST_SECONDS))
        outcome = f"{samples / 16_000:g} seconds"
    except SpeechError as error:
        outcome = f"{error.code}: {error.message}"
    print(json.dumps([outcome, _peak_bytes() - before]))


if __name__ == "__main__":
    main(sys.argv[1])
