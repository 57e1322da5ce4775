"""Where utterances lie in a stream of samples, from the stretches in which somebody speaks."""

from __future__ import annotations

from dataclasses import dataclass

from ..contract.engine import SAMPLE_RATE

PADDING = int(0.3 * SAMPLE_RATE)
"""Samples of the quiet around an utterance that belong to it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When an utterance ends and how often it is looked at; all in seconds.

    `silence` ends an utterance, `longest` cuts one; `interim` is the least new audio between two
    provisional transcriptions, None for none; `endpoints` False leaves the end to the client.
    """

    silence: float = 0.5
    longest: float = 15.0
    interim: float | None = None
    endpoints: bool = True


@dataclass(frozen=True, slots=True)
class Utterance:
    """Where an utterance lies in the samples that were looked at.

    `resume` is where the rest begins, if the utterance is `over`.
    """

    start: int
    end: int
    resume: int
    over: bool


def utterance(
    speech: list[tuple[int, int]], length: int, pace: Pace, ended: bool
) -> Utterance | None:
    """Return the first utterance of a stretch of samples, or None where nobody speaks.

    One that has grown too long is cut in its last short pause, if that is not far back.

    Args:
        speech: stretches with speech, in samples, in order.
        length: samples looked at.
        pace: when an utterance is over.
        ended: no more audio belongs to it.
    """
    if not speech:
        return None
    pause, longest = int(pace.silence * SAMPLE_RATE), int(pace.longest * SAMPLE_RATE)
    start, before = speech[0][0], speech[0][0]
    following = [stretch[0] for stretch in speech[1:]]
    for (begin, end), upcoming in zip(speech, [*following, length], strict=True):
        if end - start > longest:
            if before - start >= longest // 2:
                return Utterance(start, before, (before + begin) // 2, True)
            return Utterance(start, start + longest, start + longest, True)
        if pace.endpoints and upcoming - end >= pause:
            return Utterance(start, end, min(end + PADDING, upcoming), True)
        before = end
    return Utterance(start, before, min(before + PADDING, length), ended)
