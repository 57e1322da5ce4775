"""Where decoded audio belongs in a recording: what its time stamps leave out is silence.

Rules: time 0 is where the recording starts to play, its first picture included, as FFmpeg and the
players on it count. A frame whose stamp lies ahead of what came before it follows a hole. Stamps
that go back, or ahead to where the recording does not play, are wrong: they start a new count, and
no sound is ever left out. A stamp can be a lie, so silence is bounded by the length that the file
declares, and in all by ten minutes unless something else plays meanwhile.
"""

from __future__ import annotations

TOLERANCE_SECONDS = 0.1
"""Stamps are rounded, and codecs need a run-up; FFmpeg, too, lets so much pass."""
UNCOVERED_SECONDS = 600.0
"""Most silence in all where nothing is known to play meanwhile."""


class Timeline:
    """Counts the audio of one recording, in the order in which it is decoded; all in seconds.

    Args:
        start: stamp at which the recording starts.
        length: how long it plays; None where that is not declared.
        covered: until when something else than this audio plays, from `start`.
    """

    def __init__(self, start: float, length: float | None, covered: float) -> None:
        self._start = start
        self._length = length
        self._covered = covered
        self._position = 0.0
        self._silence = 0.0

    def silence_before(self, stamp: float | None, seconds: float) -> float:
        """Return how much silence comes before a frame, and count both.

        Args:
            stamp: of the frame; None where it has none, and follows what came before.
            seconds: how long it plays.
        """
        hole = 0.0
        if stamp is not None:
            ahead = stamp - self._start - self._position
            if ahead > TOLERANCE_SECONDS and self._is_believable(ahead):
                hole = ahead
            elif abs(ahead) > TOLERANCE_SECONDS:
                self._start += ahead
        self._position += hole + seconds
        self._silence += hole
        return hole

    def _is_believable(self, hole: float) -> bool:
        until = self._position + hole
        if self._length is not None and until > self._length + TOLERANCE_SECONDS:
            return False
        return self._silence + hole <= UNCOVERED_SECONDS or until <= self._covered
