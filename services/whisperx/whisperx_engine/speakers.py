"""Whose each word is, and where one speaker's segment ends and the next one's begins.

Rules, in this order:

1. A word is said by the voice that is heard for most of it; where none is heard, by the one whose
   turn is nearest.
2. Nobody takes the word for a moment: a lone word between two words of one other voice, in one
   segment, is that voice's, if no pause of `PAUSE_SECONDS` sets it apart on either side and its own
   voice was heard for less than `FLICKER_SECONDS` there. An answer in the middle of somebody's
   sentence is longer, or set apart, and stays.
3. A segment has one speaker: where that of the words changes, a new one begins.
4. Speakers are numbered in the order in which their first words come. Those whose voices the client
   has brought have their names: the pair of voices that is most alike first, each of them once, and
   none whose embeddings are less alike than `ALIKE`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby

from speech_service.contract.transcript import Segment, Word

PAUSE_SECONDS = 0.2
FLICKER_SECONDS = 0.4
ALIKE = 0.6
"""Cosine of the angle between two embeddings of one voice, at least; those of two are mostly below
0.3, and of two that sound alike may reach 0.7."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of one voice; seconds. Turns of several voices may overlap."""

    start: float
    end: float
    speaker: str

    def overlap(self, start: float, end: float) -> float:
        """Return how much of a stretch it covers; negative is how far away it is."""
        return min(self.end, end) - max(self.start, start)


class Turns:
    """All turns of a recording.

    Args:
        turns: in any order; not empty.
    """

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start)
        self._starts = [turn.start for turn in self._turns]
        self._longest = max(turn.end - turn.start for turn in self._turns)

    def heard(self, start: float, end: float) -> tuple[str, float]:
        """Return who is heard for most of a stretch, and how long his longest turn there is.

        Of voices that are heard equally long the one that began first has it. Where nobody is
        heard it is the nearest one.
        """
        first = bisect_left(self._starts, start - self._longest)
        here = [
            turn
            for turn in self._turns[first : bisect_left(self._starts, end)]
            if turn.overlap(start, end) > 0
        ]
        if not here:
            here = [max(self._turns, key=lambda turn: turn.overlap(start, end))]
        covered: dict[str, float] = {}
        for turn in here:
            covered[turn.speaker] = covered.get(turn.speaker, 0.0) + turn.overlap(start, end)
        speaker = max(covered, key=lambda name: covered[name])
        return speaker, max(turn.end - turn.start for turn in here if turn.speaker == speaker)


def attributed(segments: Iterable[Segment], turns: Turns) -> Iterator[Segment]:
    """Yield segments of one speaker each, as all their words; their texts join to the same text.

    A segment without words is said by whoever is heard for most of it.
    """
    number = count()
    for segment in segments:
        if segment.words:
            heard = [turns.heard(word.start, word.end) for word in segment.words]
            said = replace(segment, words=tuple(_steady(segment.words, heard)))
            parts: Iterable[Segment] = _parts(said)
        else:
            parts = [replace(segment, speaker=turns.heard(segment.start, segment.end)[0])]
        for part in parts:
            yield replace(part, id=next(number))


def numbered(segments: Sequence[Segment], known: Mapping[str, str]) -> list[Segment]:
    """Return the segments with the names of those who are known, and numbers for the others.

    Args:
        known: names by the speakers they belong to.
    """
    names = dict(known)
    free = (name for number in count() if (name := f"SPEAKER_{number:02}") not in known.values())
    for segment in segments:
        if segment.speaker is not None and segment.speaker not in names:
            names[segment.speaker] = next(free)

    def named(speaker: str | None) -> str | None:
        return None if speaker is None else names[speaker]

    return [
        replace(
            segment,
            speaker=named(segment.speaker),
            words=segment.words
            and tuple(replace(word, speaker=named(word.speaker)) for word in segment.words),
        )
        for segment in segments
    ]


def recognized(
    voices: Mapping[str, Sequence[float]], heard: Mapping[str, Sequence[float]]
) -> dict[str, str]:
    """Return the names of those speakers whose voices are known.

    Args:
        voices: embeddings of the known ones, by name.
        heard: embeddings of those in the recording, by speaker.
    """
    pairs = sorted(
        (
            (_cosine(voice, other), name, speaker)
            for name, voice in voices.items()
            for speaker, other in heard.items()
        ),
        reverse=True,
    )
    names: dict[str, str] = {}
    for likeness, name, speaker in pairs:
        if likeness >= ALIKE and speaker not in names and name not in names.values():
            names[speaker] = name
    return names


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    length = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0


def _steady(words: Sequence[Word], heard: Sequence[tuple[str, float]]) -> Iterator[Word]:
    """Yield words with their speakers, without flicker."""
    before: str | None = None
    for number, (word, (speaker, seconds)) in enumerate(zip(words, heard, strict=True)):
        after = heard[number + 1][0] if number + 1 < len(heard) else None
        if before is not None and before == after != speaker and seconds < FLICKER_SECONDS:
            earlier, later = words[number - 1], words[number + 1]
            if max(word.start - earlier.end, later.start - word.end) < PAUSE_SECONDS:
                speaker = before
        before = speaker
        yield replace(word, speaker=speaker)


def _parts(segment: Segment) -> Iterator[Segment]:
    """Yield a segment in parts of one speaker each; one that has one speaker stays as it is."""
    words = segment.words or ()
    runs = [list(run) for _, run in groupby(words, key=lambda word: word.speaker)]
    if len(runs) == 1:
        yield replace(segment, speaker=words[0].speaker)
        return
    rest = segment.text
    for number, run in enumerate(runs):
        last = number + 1 == len(runs)
        text = rest if last else rest[: _length(rest, run)]
        rest = rest[len(text) :]
        yield replace(
            segment,
            start=run[0].start,
            end=run[-1].end,
            text=text,
            words=tuple(run),
            speaker=run[0].speaker,
        )


def _length(text: str, words: Iterable[Word]) -> int:
    """Return how much of the beginning of a text some words are; the rest keeps its space."""
    position = 0
    for word in words:
        bare = word.word.strip()
        found = text.find(bare, position)
        position = found + len(bare) if found >= 0 else position
    return position
