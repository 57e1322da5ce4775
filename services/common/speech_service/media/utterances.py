"""Where utterances lie in a stream of samples, from the stretches in which somebody speaks."""

from __future__ import annotations

from dataclasses import dataclass

from ..contract.engine import SAMPLE_RATE

PADDING = int(0.3 * SAMPLE_RATE)
"""Samples of the quiet around an utterance that belong to it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When an utterance ends, when the session does, how often it is looked at; all in seconds.

    `silence` ends an utterance that began `shortest` ago or more, `longest` cuts one; `interim` is
    the least new audio between two provisional transcriptions, None for none; `endpoints` False
    leaves the end to the client. `inactivity` is the silence that ends a session of `window` or
    more, None for none.
    """

    silence: float = 0.5
    shortest: float = 0.0
    longest: float = 15.0
    interim: float | None = None
    endpoints: bool = True
    inactivity: float | None = None
    window: float = 0.0

    def is_over(self, length: int, quiet: int) -> bool:
        """Say whether the session has been silent for too long.

        Args:
            length: samples heard.
            quiet: of these, those behind the last speech.
        """
        if self.inactivity is None or length < self.window * SAMPLE_RATE:
            return False
        # No silence can be longer than the window in which it is looked for.
        return quiet >= min(self.inactivity, self.window) * SAMPLE_RATE


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
    shortest = int(pace.shortest * SAMPLE_RATE)
    start, before = speech[0][0], speech[0][0]
    following = [stretch[0] for stretch in speech[1:]]
    for (begin, end), upcoming in zip(speech, [*following, length], strict=True):
        if end - start > longest:
            if before - start >= longest // 2:
                return Utterance(start, before, (before + begin) // 2, True)
            return Utterance(start, start + longest, start + longest, True)
        if pace.endpoints and upcoming - end >= pause and upcoming - start >= shortest:
            return Utterance(start, end, min(end + PADDING, upcoming), True)
        before = end
    # Quiet that ends nothing is not waited out for ever either.
    over = ended or length - start > longest + pause
    return Utterance(start, before, min(before + PADDING, length), over)
