"""Speech from text, with the true time of every word: espeak-ng, called as a library.

`say` speaks one phrase as espeak-ng does; `speak` composes sentences word by word with
known pauses; `join` strings recordings together, which makes dialogues. All audio is
float32, mono, 16 kHz, in -1..1; all times are seconds from its start.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.floating[Any]]  # float32, but for steps on the way

RATE = 16_000
_VOICE_OF = {"en": "en-us", "fr": "fr", "ru": "ru"}
_FRAME = RATE // 200  # 5 ms, the grain of a word's edges
_QUIET = 0.03  # of a recording's loudest frame: what is below it at an edge is silence

# From espeak-ng's speak_lib.h.
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_WORD, _END_OF_LIST = 1, 0
_SPEED, _PITCH, _RANGE = 1, 3, 4


class EspeakMissing(RuntimeError):
    """The espeak-ng library is not installed: `apt-get install espeak-ng`."""


class UnknownVoice(ValueError):
    """espeak-ng has no voice of that name: see `espeak-ng --voices` and `--voices=variant`."""


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word and when it was spoken."""

    text: str
    start: float
    end: float

    def moved(self, seconds: float) -> Word:
        """Return the same word `seconds` later."""
        return replace(self, start=self.start + seconds, end=self.end + seconds)


@dataclass(frozen=True, slots=True)
class Speech:
    """A recording and the truth about it."""

    audio: Samples
    words: tuple[Word, ...] = ()

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.audio) / RATE

    @property
    def text(self) -> str:
        """The words as spoken, one blank between them."""
        return " ".join(word.text for word in self.words)


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Espeak:
    """The library, which has one voice and one callback per process."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise EspeakMissing(EspeakMissing.__doc__)
        self._library = ctypes.CDLL(name)
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _DONT_EXIT)
        self._receive = _CALLBACK(self._received)  # kept: ctypes holds no reference to it
        self._library.espeak_SetSynthCallback(self._receive)
        self._chunks: list[NDArray[np.int16]] = []
        self._starts: list[int] = []
        self._voice = ""

    def _received(self, samples: Any, count: int, events: Any) -> int:
        if samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in events:
            if event.type == _END_OF_LIST:
                break
            if event.type == _WORD:
                self._starts.append(event.sample)
        return 0

    def render(
        self, text: str, voice: str, speed: int, pitch: int, inflection: int
    ) -> tuple[Samples, list[int]]:
        """Return the audio at 16 kHz and the sample at which each word starts."""
        if voice != self._voice:
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise UnknownVoice(f"espeak-ng has no voice {voice!r}: see `espeak-ng --voices`")
            self._voice = voice
        for parameter, value in ((_SPEED, speed), (_PITCH, pitch), (_RANGE, inflection)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks, self._starts = [], []
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        audio = np.concatenate(self._chunks).astype(np.float32) / 32768
        return _resampled(audio, self._rate), [s * RATE // self._rate for s in self._starts]


@cache
def _espeak() -> _Espeak:
    return _Espeak()


def _resampled(audio: Samples, rate: int) -> Samples:
    """Return `audio` at 16 kHz, by cutting its spectrum: exact for what is below 8 kHz."""
    length = round(len(audio) * RATE / rate)
    spectrum = np.fft.rfft(audio)[: length // 2 + 1]
    return (np.fft.irfft(spectrum, length) * (length / len(audio))).astype(np.float32)


def _loud(audio: Samples) -> tuple[int, int]:
    """Return the first and one past the last sample that are not silence."""
    frames = audio[: len(audio) // _FRAME * _FRAME].reshape(-1, _FRAME)
    levels = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(levels > _QUIET * levels.max(initial=0.0))
    return (int(loud[0]) * _FRAME, int(loud[-1] + 1) * _FRAME) if len(loud) else (0, len(audio))


def say(
    text: str,
    language: str = "en",
    voice: str = "m3",
    *,
    speed: int = 160,
    pitch: int = 50,
    inflection: int = 50,
) -> Speech:
    """Speak one phrase, as espeak-ng speaks it, without silence around it.

    Args:
        text: one phrase without punctuation; its words are separated by blanks.
        language: "en", "fr", "ru" or any voice of espeak-ng, such as "en-gb".
        voice: a variant of espeak-ng, such as "f4": `espeak-ng --voices=variant`.
        speed: words per minute, 80 to 450.
        pitch, inflection: 0 to 100; 50 is usual.
    Raises:
        EspeakMissing: the library is not installed.
        UnknownVoice: no such language or voice.
    """
    full_voice = f"{_VOICE_OF.get(language, language)}+{voice}"
    audio, starts = _espeak().render(text, full_voice, speed, pitch, inflection)
    spellings = text.split()
    if len(starts) != len(spellings):  # espeak-ng joins some pairs into one spoken word
        starts = [len(audio) * i // len(spellings) for i in range(len(spellings))]
    words = []
    for spelling, start, end in zip(spellings, starts, [*starts[1:], len(audio)], strict=True):
        first, last = _loud(audio[start:end])
        words.append(Word(spelling, (start + first) / RATE, (start + last) / RATE))
    begin, end = round(words[0].start * RATE), round(words[-1].end * RATE)
    moved = tuple(word.moved(-begin / RATE) for word in words)
    return Speech(audio[begin:end], moved)


def silence(seconds: float) -> Speech:
    """Return digital silence."""
    return Speech(np.zeros(round(seconds * RATE), np.float32))


def join(parts: Iterable[Speech], pauses: float | Sequence[float] = 0.0) -> Speech:
    """Return the recordings one after the other.

    Args:
        parts: at least one recording.
        pauses: seconds of silence between neighbours; a negative one overlaps them.
    """
    parts = list(parts)
    between = [pauses] * (len(parts) - 1) if isinstance(pauses, float | int) else list(pauses)
    if len(between) != len(parts) - 1:
        raise ValueError(
            f"{len(parts)} recordings have {len(parts) - 1} pauses, not {len(between)}"
        )
    starts = [0]
    for part, pause in zip(parts, between, strict=False):
        starts.append(starts[-1] + len(part.audio) + round(pause * RATE))
    audio = np.zeros(max(s + len(p.audio) for s, p in zip(starts, parts, strict=True)), np.float32)
    for start, part in zip(starts, parts, strict=True):
        audio[start : start + len(part.audio)] += part.audio
    words = (w.moved(s / RATE) for s, p in zip(starts, parts, strict=True) for w in p.words)
    return Speech(audio, tuple(words))


def speak(
    text: str,
    language: str = "en",
    voice: str = "m3",
    *,
    speed: int = 160,
    pitch: int = 50,
    gap: float = 0.08,
    pause: float = 0.8,
    lead: float = 0.3,
    tail: float = 0.5,
) -> Speech:
    """Speak sentences word by word, which makes every word's time exact.

    Args:
        text: sentences that end with a full stop, words separated by blanks.
        language, voice, speed, pitch: as for `say`.
        gap: seconds between words. The test model hears 0.25 and less as one sentence
            and 0.5 and more as two.
        pause: seconds between sentences.
        lead, tail: seconds of silence before and after.
    Returns:
        The recording; its words are spelled as in `text`, without the full stops.
    """
    sentences = [sentence.split() for sentence in text.split(".") if sentence.strip()]
    spoken = (
        join([_spelled(word, language, voice, speed, pitch) for word in sentence], gap)
        for sentence in sentences
    )
    return join([silence(lead), join(spoken, pause), silence(tail)])


def _spelled(word: str, language: str, voice: str, speed: int, pitch: int) -> Speech:
    """Speak `word` in lower case (capitals change some pronunciations) but keep its spelling."""
    said = say(word.lower(), language, voice, speed=speed, pitch=pitch)
    return Speech(said.audio, tuple(replace(w, text=word) for w in said.words))


def write_wav(path: Path, speech: Speech) -> None:
    """Write a WAV file: 16 kHz, mono, signed 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((speech.audio.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
