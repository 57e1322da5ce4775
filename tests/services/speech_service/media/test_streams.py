"""Samples that arrive piece by piece: what comes out is what was said, however it is cut."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from numpy.typing import NDArray
from speech_service.media.streams import Encoding, StreamDecoder

PCM = Encoding("pcm_s16le", 24_000, 2)
MULAW, ALAW = Encoding("pcm_mulaw", 8_000, 1), Encoding("pcm_alaw", 8_000, 1)


def tone(rate: int) -> NDArray[np.int16]:
    """A second of 440 Hz."""
    times = np.arange(rate) / rate
    return (np.sin(times * 2 * np.pi * 440) * 10_000).astype(np.int16)


def encoded(samples: NDArray[np.int16], kind: str, rate: int) -> bytes:
    """Samples as FFmpeg's own program encodes them."""
    source = ["-f", "s16le", "-ar", str(rate), "-ac", "1", "-i", "-"]
    target = ["-f", kind, "-ar", str(rate), "-"]
    command = ["ffmpeg", "-loglevel", "error", *source, *target]
    return subprocess.run(command, input=samples.tobytes(), check=True, stdout=-1).stdout


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [(PCM, "s16le"), (MULAW, "mulaw"), (ALAW, "alaw")],
    ids=["pcm16", "mu-law", "A-law"],
)
@pytest.mark.parametrize("piece", [1, 3, 161, 4800, 100_000])
def test_length_and_tone_stay(encoding: Encoding, kind: str, piece: int) -> None:
    data = encoded(tone(encoding.rate), kind, encoding.rate)
    decoder = StreamDecoder(encoding)
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    found = np.concatenate([decoder.decode(part) for part in pieces])
    assert len(found) == pytest.approx(16_000, abs=64)
    spectrum = np.abs(np.fft.rfft(found))
    assert int(spectrum.argmax() * 16_000 / len(found)) == pytest.approx(440, abs=3)
    assert int(np.abs(found).max()) == pytest.approx(10_000, rel=0.05)


def test_half_a_sample_waits_for_its_other_half() -> None:
    decoder = StreamDecoder(PCM)
    assert len(decoder.decode(b"\x01")) == 0
    assert len(decoder.decode(b"")) == 0
