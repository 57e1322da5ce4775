"""Dialogues of two held-out voices, made at run time, and the truth about them.

The same cast gives the same samples wherever the same espeak-ng runs. Turns are single
sentences with a pause of half a second or more before the next one, as the test model
expects.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tests.speech.synthesis import Speech, Word, join, silence, speak
from tests.speech.vocabulary import WORDS

LEAD = TAIL = 0.5  # seconds of silence before and after


@dataclass(frozen=True, slots=True)
class Cast:
    """All that makes a dialogue: who speaks, in which language, and which words are drawn."""

    voices: tuple[str, str]
    seed: int
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Turn:
    """One sentence of one voice; times are seconds from the dialogue's start."""

    voice: str
    words: tuple[Word, ...]

    @property
    def start(self) -> float:
        """When its first word begins."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """When its last word ends."""
        return self.words[-1].end

    @property
    def text(self) -> str:
        """The sentence as the test model writes it."""
        return f"{' '.join(word.text for word in self.words)}."


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A recording of two voices that take turns."""

    speech: Speech
    turns: tuple[Turn, ...]
    language: str

    @property
    def text(self) -> str:
        """All sentences, one blank between them."""
        return " ".join(turn.text for turn in self.turns)


@cache
def dialogue(cast: Cast, seconds: float = 24.0) -> Dialogue:
    """Return a dialogue of at most `seconds`, and not much less."""
    # In a process of its own: espeak-ng goes on from where its last phrase left it, so that
    # the same words never sound quite the same twice.
    code = "from tests.speech.dialogues import _answer; _answer()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((cast, seconds)),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
    )
    made = pickle.loads(ended.stdout)
    assert isinstance(made, Dialogue)
    return made


def _answer() -> None:
    sys.stdout.buffer.write(pickle.dumps(_dialogue(*pickle.load(sys.stdin.buffer))))


def _dialogue(cast: Cast, seconds: float) -> Dialogue:
    random = np.random.default_rng(cast.seed)
    drawn = _turns(random, cast)
    spoken, voices, pauses, left = [], [], [], seconds - LEAD - TAIL
    for voice, speech in drawn:
        pause = round(float(random.uniform(0.6, 1.0)), 2)
        left -= speech.duration + pause
        if left < 0:
            break
        spoken.append(speech)
        voices.append(voice)
        pauses.append(pause)
    whole = join([silence(LEAD), join(spoken, pauses[:-1]), silence(TAIL)])
    words, turns = iter(whole.words), []
    for voice, speech in zip(voices, spoken, strict=True):
        turns.append(Turn(voice, tuple(next(words) for _ in speech.words)))
    return Dialogue(whole, tuple(turns), cast.language)


def _turns(random: np.random.Generator, cast: Cast) -> Iterator[tuple[str, Speech]]:
    """Yield sentences of two to five words, the voices by turns, each at its own speed."""
    speeds = [int(speed) for speed in random.integers(145, 170, 2)]
    while True:
        for voice, speed in zip(cast.voices, speeds, strict=True):
            words = random.choice(WORDS[cast.language], int(random.integers(2, 6)), replace=False)
            text = f"{' '.join(words).capitalize()}."
            yield voice, speak(text, cast.language, voice, speed=speed, lead=0, tail=0)


# Each pair of the held-out voices once, with a seed of which whisperx' pipeline and the test
# model read every word: in long recordings of random words they seldom do. Chosen by
# `choose_dialogues.py`, which knows nothing of speakers.
DIALOGUES: tuple[Cast, ...] = (
    Cast(("m5", "f4"), 0, "en"),
    Cast(("f4", "Andy"), 0, "fr"),
    Cast(("linda", "f4"), 0, "ru"),
    Cast(("f4", "Alicia"), 1, "en"),
    Cast(("max", "f4"), 0, "fr"),
    Cast(("m5", "Andy"), 1, "ru"),
    Cast(("linda", "m5"), 2, "en"),
    Cast(("m5", "Alicia"), 22, "fr"),
    Cast(("max", "m5"), 1, "ru"),
    Cast(("Andy", "linda"), 2, "en"),
    Cast(("Alicia", "Andy"), 13, "fr"),
    Cast(("Andy", "max"), 1, "ru"),
    Cast(("Alicia", "linda"), 1, "en"),
    Cast(("linda", "max"), 0, "fr"),
    Cast(("max", "Alicia"), 3, "ru"),
)
