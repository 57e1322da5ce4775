"""Subtitle cues from a transcript: short, on time, never overlapping.

A cue ends where a segment ends, where the speaker pauses, or where the next word would make it too
long to read; then the last punctuation mark in its second half is preferred to the bare limit.
Times are whole milliseconds, rounded, so that a cue never starts before its word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..contract.transcript import Segment, Word

MAX_SECONDS = 7.0
MAX_CHARACTERS = 84
PAUSE_SECONDS = 0.8

_BREAKS = tuple(".,;:!?…。、，！？；：")


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle; times in milliseconds, `end` greater than `start`, text on one line."""

    start: int
    end: int
    text: str
    speaker: str | None = None


def cues(
    segments: Iterable[Segment],
    max_seconds: float = MAX_SECONDS,
    max_characters: int = MAX_CHARACTERS,
) -> Iterator[Cue]:
    """Yield the cues of a transcript in order.

    Args:
        segments: in order of time; those without words are cut in proportion to their letters.
        max_seconds: longest time a cue stays up.
        max_characters: longest text of a cue, the speaker's name included; a single longer word
            keeps a cue to itself.
    """
    earliest = 0
    for segment in segments:
        room = max_characters - (len(f"{segment.speaker}: ") if segment.speaker else 0)
        for words in _split(_words(segment), max_seconds, room):
            text = _text(words)
            if not text:
                continue
            start = max(_milliseconds(words[0].start), earliest)
            longest = start + _milliseconds(max_seconds)
            end = max(min(_milliseconds(words[-1].end), longest), start + 1)
            earliest = end
            yield Cue(start, end, text, segment.speaker)


def _words(segment: Segment) -> list[Word]:
    """Return the words of a segment; without word times, spread them over its length."""
    if segment.words:
        return list(segment.words)
    text = segment.text.strip()
    spoken = text.split()
    per_character = (segment.end - segment.start) / max(1, len(text))
    words, position = [], 0
    for word in spoken:
        start = segment.start + position * per_character
        end = start + len(word) * per_character
        words.append(Word(start, end, " " + word, 0.0))
        position += len(word) + 1
    return words


def _split(words: list[Word], max_seconds: float, max_characters: int) -> Iterator[list[Word]]:
    """Cut a run of words into groups, each fit for one cue."""
    group: list[Word] = []
    for word in words:
        if group and word.start - group[-1].end >= PAUSE_SECONDS:
            yield group
            group = []
        while group and not _fits([*group, word], max_seconds, max_characters):
            cut = _last_break(group)
            yield group[:cut]
            group = group[cut:]
        group.append(word)
    if group:
        yield group


def _fits(words: list[Word], max_seconds: float, max_characters: int) -> bool:
    return words[-1].end - words[0].start <= max_seconds and len(_text(words)) <= max_characters


def _last_break(words: list[Word]) -> int:
    """Return how many words to keep: up to punctuation in the second half, else all."""
    for count in range(len(words), len(words) // 2, -1):
        if words[count - 1].word.rstrip().endswith(_BREAKS):
            return count
    return len(words)


def _text(words: list[Word]) -> str:
    return " ".join("".join(word.word for word in words).split())


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
