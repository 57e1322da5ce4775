"""Everybody in turn: what one connection may do in one turn of the event loop.

The event loop reads a connection as long as it has something, up to 8 MB in one turn, and whoever
sends what is cheap to send and dear to read would hold everybody up meanwhile. So:

- What is read in one turn, by all connections together, is counted. Beyond a share, a connection
  that has just been read in bulk is not read again before the next turn.
- Whoever has more to do than is fair leaves it for later. A few go on in each turn, in the order in
  which they have left off, so that twenty or three hundred hold others up no longer than one does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

BULK_BYTES: Final = 16 * 1024
"""What is read at once below this size is not counted: it is work of microseconds."""

BYTES_PER_TURN: Final = 1024 * 1024
"""About a millisecond's work for the kernel."""

RESUMED_PER_TURN: Final = 8


class Turns:
    """Counts what is done in this turn, and keeps what is left for later ones."""

    __slots__ = ("_begun", "_bytes_left", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._bytes_left = BYTES_PER_TURN
        self._begun = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._waiting)} waiting>"

    def take(self, size: int) -> bool:
        """Count bytes that were read; returns whether there is room for more in this turn."""
        self._await_next()
        self._bytes_left -= size
        return self._bytes_left > 0

    def wait(self, work: Callable[[], None]) -> None:
        """Do something in one of the next turns, after those who wait already."""
        self._waiting.append(work)
        self._await_next()

    def _await_next(self) -> None:
        if not self._begun:
            self._begun = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._begun = False
        self._bytes_left = BYTES_PER_TURN
        try:
            for _ in range(min(RESUMED_PER_TURN, len(self._waiting))):
                self._waiting.popleft()()
        finally:  # a defect in one connection must not strand the others
            if self._waiting:
                self._await_next()
