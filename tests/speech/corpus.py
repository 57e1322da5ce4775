"""Sentences to learn from: spoken, disturbed, turned into log-mels, with their true times.

A unit is one sentence of one voice with a little silence around it. Training composes
its clips from units, frame by frame of their log-mels, so that 30 s clips cost nothing.
The same seed gives the same units.
"""

from __future__ import annotations

import multiprocessing
import pickle
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from tests.speech.synthesis import RATE, Samples, Speech, join, say, silence
from tests.speech.vocabulary import ACCENTS, LANGUAGES, TRAINING_VOICES, WORDS

T = TypeVar("T")

MEL_RATE = 100  # frames per second
_MARGIN = (0.1, 0.35)  # seconds of silence before and after a unit's words
_LENGTHS = (0.16, 0.17, 0.17, 0.15, 0.12, 0.10, 0.08, 0.05)  # of sentences of 1, 2, ... words


@dataclass(slots=True)
class Unit:
    """One sentence as log-mels, or a stretch of silence or noise with no words.

    Attributes:
        mel: float16, 80 x frames, an even number of frames of 10 ms.
        words: indices into the language's words.
        times: float32, words x 2, start and end of each word in seconds.
        quiet: how many frames at the start hold no speech.
    """

    mel: NDArray[np.float16]
    language: str
    voice: str
    words: tuple[int, ...]
    times: NDArray[np.float32]
    quiet: int


def sentence(random: np.random.Generator, language: str, voice: str) -> Speech:
    """Return one spoken sentence of 1 to 8 random words in one voice."""
    accents = ACCENTS[language]
    accent = accents[0] if random.random() < 0.6 else str(random.choice(accents))
    count = 1 + int(random.choice(len(_LENGTHS), p=_LENGTHS))
    words = [str(word) for word in random.choice(WORDS[language], count)]
    speed = random.uniform(115, 240)
    pitch, inflection = random.uniform(15, 85), int(random.uniform(20, 80))

    def phrase(text: str) -> Speech:
        return say(
            text,
            accent,
            voice,
            speed=round(speed * random.uniform(0.9, 1.1)),
            pitch=round(pitch + random.uniform(-8, 8)),
            inflection=inflection,
        )

    parts = []
    while words:
        # espeak-ng's own phrases glide from word to word, which composed ones do not.
        together = int(random.integers(2, 4)) if random.random() < 0.2 else 1
        parts.append(phrase(" ".join(words[:together])))
        words = words[together:]
    mean = random.uniform(0.0, 0.16)
    gaps = [float(np.clip(mean + random.uniform(-0.06, 0.08), -0.01, 0.25)) for _ in parts[1:]]
    lead, tail = random.uniform(*_MARGIN, 2)
    return join([silence(lead), join(parts, gaps), silence(tail)])


def noise(random: np.random.Generator, length: int) -> Samples:
    """Return noise of a random colour, with a root mean square of 1."""
    frequencies = np.fft.rfftfreq(length, 1 / RATE)
    slope = random.uniform(0.0, 1.2)
    spectrum = np.fft.rfft(random.standard_normal(length)) / np.maximum(frequencies, 50) ** slope
    samples = np.fft.irfft(spectrum, length)
    return np.asarray(samples / np.sqrt((samples**2).mean()), np.float32)


def disturbed(random: np.random.Generator, audio: Samples) -> Samples:
    """Return `audio` as a cheap microphone in a real room might deliver it."""
    length = len(audio)
    if random.random() < 0.5:
        audio = audio + random.uniform(-0.6, 0.6) * np.concatenate([audio[:1], audio[:-1]])
    if random.random() < 0.1:
        spectrum = np.fft.rfft(audio)
        spectrum[np.fft.rfftfreq(length, 1 / RATE) > random.uniform(3400, 7000)] = 0
        audio = np.fft.irfft(spectrum, length)
    if random.random() < 0.15:
        decay = np.exp(-np.arange(RATE // 8) / (RATE * random.uniform(0.01, 0.04)))
        reach = length + len(decay)
        room = np.fft.rfft(noise(random, len(decay)) * decay, reach)
        echoes = np.fft.irfft(np.fft.rfft(audio, reach) * room, reach)[:length]
        strength = random.uniform(0.1, 0.4) * _level(audio) / max(_level(echoes), 1e-6)
        audio = audio + echoes * strength
    if random.random() < 0.75:
        ratio = 10 ** (-random.uniform(12, 50) / 20)
        audio = audio + noise(random, length) * (ratio * _level(audio))
    peak = 10 ** random.uniform(-1.5, -0.01)
    scaled = audio * (peak / np.abs(audio).max())
    return np.asarray(np.round(scaled * 32767) / 32768, np.float32)


def _level(audio: Samples) -> float:
    return float(np.sqrt(np.mean(audio**2)))


def log_mel(audio: Samples) -> NDArray[np.float16]:
    """Return the features faster-whisper computes, an even number of frames of 10 ms."""
    features = np.asarray(FeatureExtractor()(audio, padding=0), np.float16)
    return features[:, : features.shape[1] // 2 * 2]


def _spoken(random: np.random.Generator, voices: Sequence[str]) -> Unit:
    language, voice = str(random.choice(LANGUAGES)), str(random.choice(voices))
    speech = sentence(random, language, voice)
    words = tuple(WORDS[language].index(word.text) for word in speech.words)
    times = np.array([(word.start, word.end) for word in speech.words], np.float32)
    quiet = int((speech.words[0].start - 0.03) * MEL_RATE)
    return Unit(log_mel(disturbed(random, speech.audio)), language, voice, words, times, quiet)


def wordless(random: np.random.Generator) -> Samples:
    """Return silence, noise, hum or clicks, of half a second to six."""
    length = int(random.uniform(0.5, 6) * RATE)
    audio = np.zeros(length, np.float32)
    kind = random.random()
    if kind < 0.75:
        audio += noise(random, length) * 10 ** random.uniform(-4.5, -0.7)
    if 0.6 < kind < 0.85:
        seconds = np.arange(length) / RATE
        audio += np.sin(2 * np.pi * random.uniform(50, 2000) * seconds) * 10 ** random.uniform(
            -3, -0.7
        )
    if 0.5 < kind < 0.6:
        audio[random.integers(0, length, 8)] += random.uniform(-0.5, 0.5)
    return audio.clip(-1, 1).astype(np.float32)


def _quiet(random: np.random.Generator) -> Unit:
    mel = log_mel(wordless(random))
    return Unit(mel, "", "", (), np.zeros((0, 2), np.float32), mel.shape[1])


def _unit(random: np.random.Generator, number: int, voices: Sequence[str]) -> Unit:
    return _quiet(random) if number % 20 == 0 else _spoken(random, voices)


Maker = Callable[[np.random.Generator, int], T]


def _shard(task: tuple[int, int, Maker[Any]]) -> bytes:
    seed, count, make = task
    random = np.random.default_rng(seed)
    return zlib.compress(pickle.dumps([make(random, number) for number in range(count)]), 1)


def many(make: Maker[T], seed: int, count: int) -> list[T]:
    """Return `count` results of `make`, the same for the same arguments.

    Args:
        make: a function of a module, or a partial of one: other processes call it, too. It
            is given a generator and a number below 500.
    """
    size = 500
    tasks = [(seed + start, min(size, count - start), make) for start in range(0, count, size)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return [
            item
            for shard in pool.imap(_shard, tasks)
            for item in pickle.loads(zlib.decompress(shard))
        ]  # noqa: S301


def units(seed: int, count: int, voices: Sequence[str] = TRAINING_VOICES) -> list[Unit]:
    """Return `count` units, one in twenty without words; the same for the same arguments."""
    return many(partial(_unit, voices=voices), seed, count)


def kept(file: Path, make: Callable[[], list[T]]) -> list[T]:
    """Return `make()`, kept in `file` from the first call on."""
    if not file.exists():
        made = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        partial_file = file.with_suffix(".partial")
        with partial_file.open("wb") as stream:
            pickle.dump(made, stream, protocol=5)
        partial_file.rename(file)
    with file.open("rb") as stream:
        return list(pickle.load(stream))  # noqa: S301 - written by this function
