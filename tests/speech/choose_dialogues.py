"""Find dialogues that are read right: `python -m tests.speech.choose_dialogues`.

Prints, for each pair of held-out voices, the first seed with which whisperx' pipeline and
the test model read every word: `DIALOGUES` in `dialogues.py`. A seed counts only if the
text stays right with other arithmetic and at another volume, because tests on another
processor must read the same words. Who speaks plays no part in the choice.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from pathlib import Path

import numpy as np
import whisperx

from tests.speech.dialogues import Cast, Dialogue, dialogue
from tests.speech.vocabulary import LANGUAGES, TEST_VOICES

LEAST_SECONDS = 20.0


class Reader:
    """whisperx' transcription, with the test model in two kinds of arithmetic."""

    def __init__(self, folder: Path) -> None:
        self._exact, self._float = (
            whisperx.load_model(str(folder), "cpu", compute_type=kind, threads=1)
            for kind in ("int8", "float32")
        )

    def accepts(self, item: Dialogue) -> bool:
        """Return whether text and language are right in every way of listening."""
        audio = item.speech.audio.astype(np.float32)
        for model, heard in (
            (self._exact, audio),
            (self._float, audio),
            (self._exact, audio * np.float32(0.4)),
        ):
            read = model.transcribe(heard, batch_size=4)
            text = " ".join(segment["text"].strip() for segment in read["segments"])
            if (text, read["language"]) != (item.text, item.language):
                return False
        return True


def main() -> None:
    """Print the casts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whisper", type=Path, default=Path(__file__).parent / "model")
    logging.disable(logging.WARNING)  # whisperx logs to standard output
    reader = Reader(parser.parse_args().whisper)
    for number, voices in enumerate(itertools.combinations(TEST_VOICES, 2)):
        # Each voice begins about as often as it answers.
        first, second = voices if number % 2 else reversed(voices)
        for seed in itertools.count():
            cast = Cast((first, second), seed, LANGUAGES[number % len(LANGUAGES)])
            made = dialogue(cast)
            if made.speech.duration >= LEAST_SECONDS and reader.accepts(made):
                print(f"{cast},", flush=True)
                break


if __name__ == "__main__":
    main()
