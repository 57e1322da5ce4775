"""A thread that writes the log, where a reader may be slow or stuck.

Somebody who stops a terminal, or a journal that hangs, would otherwise stop every request. What
waits to be written is bounded; what does not fit is lost, and the loss is told as soon as somebody
reads again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

LIMIT_CHARACTERS = 4 * 1024 * 1024
"""A minute of a busy proxy's lines, or days of an idle one's."""

DRAIN_SECONDS = 2.0
"""How long the end of the program waits for a reader."""


class Writer:
    """Writes text to a stream, in order, and never makes its caller wait.

    Args:
        loss: makes the line that tells how many lines were lost.
    """

    def __init__(self, stream: TextIO, loss: Callable[[int], str]) -> None:
        self._stream = stream
        self._loss = loss
        self._texts: deque[str] = deque()
        self._characters = 0
        self._lost = 0
        self._busy = self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Write soon; whole lines."""
        with self._changed:
            if self._characters + len(text) > LIMIT_CHARACTERS:
                self._lost += text.count("\n")
                return
            self._texts.append(text)
            self._characters += len(text)
            if self._thread is None:
                # A daemon: a reader that never reads must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self) -> None:
        """Return once everything is written; after `DRAIN_SECONDS` in any case."""
        with self._changed:
            self._changed.wait_for(lambda: not self._texts and not self._busy, DRAIN_SECONDS)

    def close(self) -> None:
        """End the thread, once it has written what it has."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while text := self._next():
            with suppress(OSError, ValueError):  # nobody is there any more, not even to be told
                self._stream.write(text)
                self._stream.flush()

    def _next(self) -> str:
        """Wait for text; empty at the end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._texts or self._lost or self._closed)
            texts, lost = list(self._texts), self._lost
            self._texts.clear()
            self._characters = self._lost = 0
            self._busy = bool(texts or lost)
        return "".join(texts) + (f"{self._loss(lost)}\n" if lost else "")
