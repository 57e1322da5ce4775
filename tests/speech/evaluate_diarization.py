"""Measure the diarization model: `python -m tests.speech.evaluate_diarization`.

Every figure comes from whisperx and pyannote.metrics themselves. Errors are the part of the
speech that is missed, or given to nobody or to the wrong one: strictly, and without the
250 ms on either side of each change, as is usual.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate
from whisperx.diarize import DiarizationPipeline

from tests.speech.corpus import noise
from tests.speech.dialogues import DIALOGUES, Cast, Dialogue, dialogue
from tests.speech.pipeline import DIARIZATION
from tests.speech.synthesis import RATE, Samples, speak
from tests.speech.train_diarization import TUNING_VOICES
from tests.speech.vocabulary import LANGUAGES, TEST_VOICES


@dataclass(slots=True)
class Tally:
    """Sums over dialogues."""

    two: int = 0
    count: int = 0
    errors: dict[str, list[float]] = field(default_factory=dict)

    def report(self) -> str:
        """Return one line: dialogues in which two speakers were found, mean and worst errors."""
        shown = "  ".join(
            f"{name} {100 * np.mean(values):.1f} % (worst {100 * max(values):.0f})"
            for name, values in self.errors.items()
        )
        return f"two speakers {self.two}/{self.count}  {shown}"


def load() -> DiarizationPipeline:
    """Return whisperx' pipeline with the committed model."""
    return DiarizationPipeline(model_name=str(DIARIZATION), device="cpu")


def _truth(item: Dialogue) -> Annotation:
    annotation = Annotation()
    for turn in item.turns:
        annotation[Segment(turn.start, turn.end)] = turn.voice
    return annotation


def _found(pipeline: DiarizationPipeline, audio: Samples, **hints: int) -> Annotation:
    annotation = Annotation()
    table: Any = pipeline(audio.astype(np.float32), **hints)
    for number, row in enumerate(table.itertuples()):
        annotation[Segment(row.start, row.end), number] = row.speaker
    return annotation


def tally(
    pipeline: DiarizationPipeline, items: Sequence[Dialogue], verbose: bool, **hints: int
) -> Tally:
    """Diarize the dialogues, and compare."""
    metrics = {
        "error": DiarizationErrorRate(collar=0.5),  # of both sides together
        "strict": DiarizationErrorRate(),
    }
    total = Tally(errors={name: [] for name in metrics})
    for item in items:
        truth, found = _truth(item), _found(pipeline, item.speech.audio, **hints)
        total.count += 1
        total.two += len(found.labels()) == 2
        for name, metric in metrics.items():
            total.errors[name].append(metric(truth, found))
        if verbose:
            last = " ".join(f"{values[-1]:.3f}" for values in total.errors.values())
            print(f"    {sorted({t.voice for t in item.turns})} {found.labels()} {last}")
    return total


def made(voices: Sequence[str], count: int, seconds: float) -> list[Dialogue]:
    """Return `count` dialogues, going through all pairs of `voices` and the languages."""
    pairs = itertools.cycle(itertools.combinations(voices, 2))
    return [
        dialogue(Cast(next(pairs), 1000 + number, LANGUAGES[number % len(LANGUAGES)]), seconds)
        for number in range(count)
    ]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="dialogues of each kind")
    parser.add_argument("--tuning", action="store_true", help="on the voices to tune on, only")
    parser.add_argument("--verbose", action="store_true", help="print a line for each dialogue")
    arguments = parser.parse_args()
    pipeline = load()

    def show(name: str, items: Sequence[Dialogue], **hints: int) -> None:
        began = time.monotonic()
        result = tally(pipeline, items, arguments.verbose, **hints)
        factor = (time.monotonic() - began) / sum(item.speech.duration for item in items)
        print(f"{name:28} {result.report()}  real-time factor {factor:.2f}", flush=True)

    if arguments.tuning:
        show("30 s, tuning voices", made(TUNING_VOICES, arguments.count, 30.0))
        return
    chosen = [dialogue(cast) for cast in DIALOGUES]
    for hints in ({}, {"num_speakers": 2}, {"min_speakers": 2}, {"max_speakers": 2}):
        name = " ".join(f"{key}={value}" for key, value in hints.items()) or "no hint"
        show(f"DIALOGUES, {name}", chosen, **hints)
    held_out = made(TEST_VOICES, arguments.count, 30.0)
    show("30 s, held-out voices", held_out)
    show("30 s, num_speakers=2", held_out, num_speakers=2)
    show("60 s, held-out voices", made(TEST_VOICES, arguments.count // 3, 60.0))
    alone = [speak("Hello world. " * 10, "en", voice) for voice in TEST_VOICES]
    counts = [len(_found(pipeline, speech.audio).labels()) for speech in alone]
    print(f"{'one voice, 20 s':28} speakers {counts}")
    random = np.random.default_rng(22)
    for name, audio in (
        ("silence", np.zeros(20 * RATE, np.float32)),
        ("noise", noise(random, 20 * RATE) * np.float32(0.05)),
        ("faint noise", noise(random, 20 * RATE) * np.float32(0.001)),
        ("a tenth of a second", np.zeros(RATE // 10, np.float32)),
    ):
        print(f"{name:28} speakers {len(_found(pipeline, audio).labels())}")


if __name__ == "__main__":
    main()
