"""Measure an exported model on voices it never heard: `python -m tests.speech.evaluate MODEL`.

Every figure comes from faster-whisper itself, with its default options where the line
does not say otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

from tests.speech.corpus import disturbed, noise, sentence
from tests.speech.synthesis import RATE, Samples, Speech, join, silence
from tests.speech.vocabulary import LANGUAGES, TEST_VOICES, translate

BINS = ((1.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, 29.0), (60.0, 75.0))


@dataclass(frozen=True, slots=True)
class Recording:
    """A test recording: what was said, in which language, and as which text."""

    speech: Speech
    language: str
    text: str


@dataclass(slots=True)
class Score:
    """Sums over recordings; see `report`."""

    wrong: int = 0
    words: int = 0
    exact: int = 0
    count: int = 0
    right_language: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    missed: list[tuple[str, str]] = field(default_factory=list)

    def report(self) -> str:
        """Return one line: word error rate, exact texts, languages, and time errors."""
        line = (
            f"WER {100 * self.wrong / max(self.words, 1):5.1f} %  exact {self.exact}/{self.count}  "
            f"language {self.right_language}/{self.count}"
        )
        for name, errors in (("starts", self.starts), ("ends", self.ends)):
            if errors:
                line += f"  {name} {spread(errors)}"
        return line


def spread(errors: Sequence[float]) -> str:
    """Return the median and the ninetieth percentile of what was missed by, in ms."""
    median, ninth = np.percentile(np.abs(errors), (50, 90)) * 1000
    return f"{median:.0f} ms (p90 {ninth:.0f})"


def recording(
    random: np.random.Generator, language: str, seconds: tuple[float, float], voice: str = ""
) -> Recording:
    """Return sentences of one held-out voice, of a total length within `seconds`."""
    voice = voice or str(random.choice(TEST_VOICES))
    while True:
        target = random.uniform(*seconds)
        parts = [sentence(random, language, voice)]
        while sum(part.duration + 0.3 for part in parts) < target - 2.5:
            parts.append(sentence(random, language, voice))
        pauses = [float(random.uniform(0.3, 0.9)) for _ in parts[1:]]
        speech = join([silence(0.1), join(parts, pauses), silence(0.2)])
        if seconds[0] <= speech.duration <= seconds[1]:
            text = " ".join(f"{part.text.capitalize()}." for part in parts)
            return Recording(speech, language, text)


def plain(text: str) -> list[str]:
    """Return the words of `text`, in lower case."""
    return text.lower().replace(".", " ").split()


def distance(truth: Sequence[str], heard: Sequence[str]) -> int:
    """Return how many words must be changed, added or removed."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(truth, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def score(model: WhisperModel, recordings: Iterable[Recording], **options: Any) -> Score:
    """Transcribe the recordings, or translate them, and compare."""
    total = Score()
    transcribe = (
        BatchedInferencePipeline(model).transcribe
        if options.pop("batched", False)
        else model.transcribe
    )
    for item in recordings:
        segments, info = transcribe(
            item.speech.audio, **{"condition_on_previous_text": True, **options}
        )
        segments = list(segments)
        heard = "".join(segment.text for segment in segments).strip()
        truth = (
            translate(item.text, item.language) if options.get("task") == "translate" else item.text
        )
        total.wrong += distance(plain(truth), plain(heard))
        total.words += len(item.speech.words)
        total.exact += heard == truth
        total.count += 1
        total.right_language += info.language == item.language
        if heard != truth:
            total.missed.append((truth, heard))
        words = [word for segment in segments for word in segment.words or ()]
        if len(words) == len(item.speech.words) and heard == truth:
            total.starts += [
                w.start - t.start for w, t in zip(words, item.speech.words, strict=True)
            ]
            total.ends += [w.end - t.end for w, t in zip(words, item.speech.words, strict=True)]
    return total


def _wordless(random: np.random.Generator) -> list[Samples]:
    lengths = [int(random.uniform(1, 20) * RATE) for _ in range(20)]
    loud = [noise(random, length) * np.float32(10 ** random.uniform(-4, -1)) for length in lengths]
    return [*loud, *(np.zeros(length, np.float32) for length in lengths[:5])]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=30, help="recordings of each length")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--missed", action="store_true", help="print the texts that came out wrong")
    arguments = parser.parse_args()
    model = WhisperModel(
        str(arguments.model), device="cpu", compute_type="int8", cpu_threads=arguments.threads
    )
    random = np.random.default_rng(20)

    def show(name: str, result: Score) -> None:
        print(f"{name:34} {result.report()}", flush=True)
        if arguments.missed:
            for truth, heard in result.missed:
                print(f"    {truth}\n  > {heard}")

    kept: list[Recording] = []
    for bounds in BINS:
        count = arguments.count if bounds[1] < 30 else max(3, arguments.count // 5)
        made = [recording(random, LANGUAGES[i % len(LANGUAGES)], bounds) for i in range(count)]
        kept += made[: count // 3]
        began = time.monotonic()
        result = score(model, made, word_timestamps=True)
        factor = (time.monotonic() - began) / sum(item.speech.duration for item in made)
        show(f"{bounds[0]:.0f} to {bounds[1]:.0f} s", result)
        print(f"{'':34} real-time factor {factor:.3f}", flush=True)
    for language in LANGUAGES:
        show(language, score(model, [item for item in kept if item.language == language]))
    show("all lengths, greedy", score(model, kept, beam_size=1))
    show("all lengths, VAD", score(model, kept, vad_filter=True))
    show("all lengths, batched", score(model, kept, batched=True, word_timestamps=True))
    show(
        "up to 29 s, without timestamps",
        score(model, [k for k in kept if k.speech.duration < 30], without_timestamps=True),
    )
    show("translated", score(model, [k for k in kept if k.language != "en"], task="translate"))
    rough = [
        Recording(Speech(disturbed(random, k.speech.audio), k.speech.words), k.language, k.text)
        for k in kept
    ]
    show("all lengths, disturbed", score(model, rough))
    wordless = _wordless(random)
    empty = sum(not list(model.transcribe(audio)[0]) for audio in wordless)
    print(f"silence and noise without text     {empty}/{len(wordless)}")


if __name__ == "__main__":
    main()
