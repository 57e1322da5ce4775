"""Measure the alignment model: `python -m tests.speech.evaluate_alignment`.

Every figure comes from whisperx itself, on voices that the model never heard. Errors are
those of word starts and ends against the truth; "given" aligns the true text of a whole
recording, "heard" what the Whisper model reads in the pieces that whisperx cuts.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.speech.corpus import disturbed
from tests.speech.evaluate import Recording, plain, recording, spread
from tests.speech.synthesis import Speech, Word
from tests.speech.vocabulary import LANGUAGES, TEST_VOICES

HERE = Path(__file__).parent
BINS = ((1.0, 5.0), (5.0, 15.0), (15.0, 29.0))
_PUNKT = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


@dataclass(slots=True)
class Errors:
    """Of word times, in seconds."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    timeless: int = 0
    misread: int = 0

    def add(self, words: list[dict[str, Any]], truth: tuple[Word, ...]) -> None:
        """Compare the words whisperx found with the true ones; both are the same words."""
        for word, true in zip(words, truth, strict=True):
            if "start" not in word or "end" not in word:
                self.timeless += 1
                continue
            self.starts.append(word["start"] - true.start)
            self.ends.append(word["end"] - true.end)

    def report(self) -> str:
        """Return one line."""
        return (
            f"{len(self.starts)} words  starts {spread(self.starts)}  ends {spread(self.ends)}  "
            f"without times {self.timeless}  recordings misread {self.misread}"
        )


def punkt(folder: Path) -> None:
    """Write what nltk needs to split sentences: tables that know no abbreviation."""
    for language in ("english", "french", "russian"):
        place = folder / "tokenizers" / "punkt_tab" / language
        place.mkdir(parents=True)
        for name in _PUNKT:
            (place / name).touch()


class Aligner:
    """whisperx, with the models of the project."""

    def __init__(self, whisper: Path, alignment: Path) -> None:
        # Read by nltk when it is imported, which whisperx does.
        folder = Path(tempfile.mkdtemp())
        punkt(folder)
        os.environ["NLTK_DATA"] = str(folder)
        import whisperx

        self._whisperx = whisperx
        self._models = {
            language: whisperx.load_align_model(language, "cpu", model_name=str(alignment))
            for language in LANGUAGES
        }
        self._asr = whisperx.load_model(str(whisper), "cpu", compute_type="int8")

    def given(self, item: Recording) -> list[dict[str, Any]]:
        """Return the words of the true text, with the times found for them."""
        segment = {"text": f" {item.text}", "start": 0.0, "end": item.speech.duration}
        return self._align(item, [segment])

    def heard(self, item: Recording) -> list[dict[str, Any]] | None:
        """Return the words the Whisper model reads, or None if they are not the true ones."""
        read = self._asr.transcribe(item.speech.audio.astype(np.float32), batch_size=4)
        text = " ".join(segment["text"].strip() for segment in read["segments"])
        if plain(text) != plain(item.text) or read["language"] != item.language:
            return None
        return self._align(item, read["segments"])

    def _align(self, item: Recording, segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        model, metadata = self._models[item.language]
        audio = item.speech.audio.astype(np.float32)
        found = self._whisperx.align(segments, model, metadata, audio, "cpu")
        return list(found["word_segments"])

    def errors(self, items: Iterable[Recording], *, given: bool) -> Errors:
        """Return the errors over all recordings that are read right."""
        total = Errors()
        for item in items:
            words = self.given(item) if given else self.heard(item)
            if words is None:
                total.misread += 1
            else:
                total.add(words, item.speech.words)
        return total


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whisper", type=Path, default=HERE / "model")
    parser.add_argument("--alignment", type=Path, default=HERE / "alignment")
    parser.add_argument("--count", type=int, default=30, help="recordings of each length")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # whisperx logs to standard output
    aligner = Aligner(arguments.whisper, arguments.alignment)
    random = np.random.default_rng(21)
    everything: list[Recording] = []
    for bounds in BINS:
        made = [
            recording(random, LANGUAGES[i % len(LANGUAGES)], bounds, TEST_VOICES[i // 3 % 6])
            for i in range(arguments.count)
        ]
        everything += made
        for given in (True, False):
            name = f"{bounds[0]:.0f} to {bounds[1]:.0f} s, {'given' if given else 'heard'}"
            print(f"{name:26} {aligner.errors(made, given=given).report()}", flush=True)
    rough = [
        Recording(Speech(disturbed(random, r.speech.audio), r.speech.words), r.language, r.text)
        for r in everything
    ]
    bare = [Recording(r.speech, r.language, r.text.replace(".", "")) for r in everything]
    for name, items in (("disturbed, given", rough), ("no full stops, given", bare)):
        print(f"{name:26} {aligner.errors(items, given=True).report()}", flush=True)
    for language in LANGUAGES:
        items = [r for r in everything if r.language == language]
        print(f"{language + ', given':26} {aligner.errors(items, given=True).report()}", flush=True)


if __name__ == "__main__":
    main()
