"""How soon after trouble a service may be started again."""

from __future__ import annotations

from collections import deque

from autostart_proxy import errors

WINDOW_SECONDS = 60.0
TROUBLES_PER_WINDOW = 5
"""At most this many starts in a window may end in trouble before the next has to wait."""


class Backoff:
    """Counts the starts that failed and the crashes of what had started.

    At once after one trouble, then after 2, 4 and 8 s; where the window is full of them, when its
    oldest leaves it. All times are seconds of one monotonic clock.

    Attributes:
        due_at: when the next start may be tried; minus infinity where nothing stands against it.
        reason: the latest trouble; None before the first.
    """

    def __init__(self) -> None:
        self._troubles: deque[float] = deque(maxlen=TROUBLES_PER_WINDOW)
        self.due_at = float("-inf")
        self.reason: errors.OperationError | None = None

    def note(self, reason: errors.OperationError, now: float) -> None:
        """Trouble again."""
        self.reason = reason
        self._troubles.append(now)
        recent = [at for at in self._troubles if now - at < WINDOW_SECONDS]
        if len(recent) == TROUBLES_PER_WINDOW:
            self.due_at = recent[0] + WINDOW_SECONDS
        else:
            self.due_at = now + (2.0 ** (len(recent) - 1) if len(recent) > 1 else 0.0)

    def forget(self) -> None:
        """Somebody knows better: start at once."""
        self._troubles.clear()
        self.reason = None
        self.due_at = float("-inf")
