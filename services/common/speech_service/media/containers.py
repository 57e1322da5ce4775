"""What a file that cannot be opened was meant to be, told by how it begins.

FFmpeg says of a file that ends within its header what it says of any rubbish. The difference
matters to whoever sent it: the format is right, and a part of the file is missing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Container:
    """A file format: its name for people, and what to do where a file of it is incomplete."""

    name: str
    cure: str = "send the whole file"


_JOIN = (
    "its first piece holds no audio yet; send all pieces of the recorder, joined from the first on"
)
_MATROSKA = Container("WebM or Matroska", _JOIN)
_MP4 = Container(
    "MP4 or M4A",
    "its index (moov) is missing, which recorders write last; stop the recorder and send the file "
    "once it is closed",
)
_WAV = Container("WAV", "there are no samples behind its header; send the file once it is closed")
_MP3 = Container("MP3")

# Where the mark stands, the mark, and whose it is.
_MARKS = (
    (0, b"\x1aE\xdf\xa3", _MATROSKA),
    *((4, box, _MP4) for box in (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide")),
    (0, b"OggS", Container("Ogg", _JOIN)),
    (0, b"fLaC", Container("FLAC")),
    (0, b"ID3", _MP3),
    (8, b"WAVE", _WAV),
    (0, b"riff.\x91\xcf\x11", _WAV),
    (8, b"AVI ", Container("AVI")),
    *((8, kind, Container("AIFF")) for kind in (b"AIFF", b"AIFC")),
    (0, b"caff", Container("CAF")),
    (0, b".snd", Container("AU")),
    (0, b"#!AMR", Container("AMR")),
    (0, b"FLV\x01", Container("FLV")),
    (0, b"0&\xb2u\x8ef\xcf\x11", Container("ASF (WMA)")),
    (0, b"\x00\x00\x01\xba", Container("MPEG")),
    (0, b"\x0bw", Container("AC-3")),
)
HEAD_BYTES = 200
"""How much of a file is enough to tell."""
_TS_PACKET = 188


def container_of(head: bytes) -> Container | None:
    """Return the format whose files begin so, None for none that is accepted.

    Args:
        head: the first `HEAD_BYTES` of the file, or all it has.
    """
    for place, mark, container in _MARKS:
        if head.startswith(mark, place):
            return container
    if head[:4] == b"RIFF" and len(head) < 12:
        return _WAV
    if head[:1] == b"G" == head[_TS_PACKET : _TS_PACKET + 1]:
        return Container("MPEG-TS")
    # A frame of MPEG audio or ADTS (ISO 11172-3, ISO 13818-7) begins with eleven ones; FFFE is the
    # mark of a text in UTF-16.
    if head[:1] == b"\xff" and b"\xe0" <= head[1:2] < b"\xfe":
        return _MP3
    return None
