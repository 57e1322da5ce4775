"""Media files for tests, made by FFmpeg or by hand."""

from __future__ import annotations

import io
import subprocess
import tempfile
import wave
from functools import cache
from pathlib import Path

import numpy as np

RATE = 16_000


@cache
def tone(seconds: float = 1.0) -> bytes:
    """A WAV file with a quiet tone."""
    times = np.arange(int(seconds * RATE)) / RATE
    return wav((np.sin(times * 2 * np.pi * 440) * 3000).astype(np.int16))


@cache
def silence(seconds: float) -> bytes:
    """A WAV file with nothing in it."""
    return wav(np.zeros(int(seconds * RATE), np.int16))


def wav(samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> bytes:
    """A WAV file of mono samples at 16 kHz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


@cache
def ffmpeg(*arguments: str) -> bytes:
    """What FFmpeg writes; into a file, because some formats go back to their head at the end."""
    with tempfile.NamedTemporaryFile() as file:
        command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *arguments, file.name]
        subprocess.run(command, check=True)
        return Path(file.name).read_bytes()
