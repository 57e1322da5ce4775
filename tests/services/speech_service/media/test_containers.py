"""Formats told by how their files begin; `test_audio` has files that are cut."""

from __future__ import annotations

import pytest
from speech_service.media.containers import container_of


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x1aE\xdf\xa3", "WebM or Matroska"),
        (b"\x00\x00\x00\x1cftypM4A ", "MP4 or M4A"),
        (b"RIFF\x00\x00", "WAV"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "WAV"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "AVI"),
        (b"OggS", "Ogg"),
        (b"ID3\x04", "MP3"),
        (b"\xff\xfb\x90", "MP3"),
        (b"\xff\xf1", "MP3"),
        (b"G" + bytes(187) + b"G", "MPEG-TS"),
        (b"G" + bytes(187), None),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", None),
        (b"\xff\xfeH\x00i\x00", None),
        (b"\xff\xd8\xff\xe0", None),
        (b"\xff", None),
        (b"%PDF-1.7", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_a_format_is_told_by_its_mark(head: bytes, name: str | None) -> None:
    container = container_of(head)
    assert (container and container.name) == name
