"""The last lines of a program's output, bounded whatever the program writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

KEPT_LINES = 20
KEPT_CHARACTERS = 500
LONGEST_LINE_BYTES = 4096


class Tail:
    """Cuts a byte stream into lines and remembers the last `KEPT_LINES` of them.

    Lines end at LF; what a line has beyond `LONGEST_LINE_BYTES` is dropped. Undecodable bytes and
    control characters are replaced, since a program may write anything and terminals obey it.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first, with one that has not ended yet."""
        unfinished = [_clean(self._rest)[:KEPT_CHARACTERS]] if self._rest else []
        return (*self._lines, *unfinished)[-KEPT_LINES:]

    def feed(self, data: bytes) -> list[str]:
        """Take in output and return the lines that it completed, empty ones left out."""
        *ended, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LONGEST_LINE_BYTES]
        lines = [line for line in map(_clean, ended) if line]
        self._lines.extend(line[:KEPT_CHARACTERS] for line in lines)
        return lines


def last_lines(chunks: Iterable[bytes]) -> tuple[str, ...]:
    """The last lines of output that is complete."""
    tail = Tail()
    for chunk in chunks:
        tail.feed(chunk)
    return tail.lines


def _clean(line: bytes) -> str:
    text = line[:LONGEST_LINE_BYTES].decode("utf-8", "replace").rstrip()
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\t" else "\N{REPLACEMENT CHARACTER}" for each in text
    )
