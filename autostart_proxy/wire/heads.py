"""Where a head ends, how large it may be, and when it can no longer become one. Pure.

Whoever ends lines with bare LF, or speaks another protocol, never sends the empty line that ends a
head, and its peer would wait for a time limit. So a head is judged while it grows: each of its
lines once, however it arrives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

from autostart_proxy.errors import ProxyError
from autostart_proxy.wire.grammar import FIELDS, TEXT, TOKEN

FIRST_LINE_LIMIT_BYTES = 16 * 1024
FIELD_LINE_LIMIT_BYTES = 32 * 1024
"""Browsers split a large cookie, and Nginx joins what came in pieces over HTTP/2 to one line."""

HEAD_LIMIT_BYTES = 64 * 1024
FIELD_LIMIT = 200

_END = b"\r\n\r\n"
_SMALL_BYTES = FIELD_LIMIT * len("X:\r\n")
"""What is not larger is within every limit."""

_FIELD_LINES = re.compile(FIELDS)
_FIELD_BEGUN = re.compile(rb"(?:" + TOKEN + rb"++(?::" + TEXT + rb"*+\r?)?|\r)?")


class Fault(Enum):
    """What is wrong with a head."""

    BROKEN = "it is not valid"
    FIRST_LINE_TOO_LONG = "its first line is too long"
    TOO_LARGE = "its fields are too large, or too many"


class GrowingHead:
    """A head on its way: its first line, and the field lines behind.

    The trailers of a chunked body are one too; their first line is the last chunk.

    Args:
        line: matches the whole first line, with its CRLF.
        begun: matches every beginning of such a line in full (`beginnings`).
        refusal: what to raise for a fault.
    """

    __slots__ = ("_begun", "_line", "_refusal", "checked")

    def __init__(
        self,
        line: re.Pattern[bytes],
        begun: re.Pattern[bytes],
        refusal: Callable[[Fault], ProxyError],
    ) -> None:
        self._line: Final = line
        self._begun: Final = begun
        self._refusal: Final = refusal
        self.checked = 0

    def __repr__(self) -> str:
        return f"<GrowingHead {self.checked} bytes checked>"

    def end(self, data: bytes, at: int = 0) -> int:
        """Find where the head that begins at `at` ends; 0 while it has not.

        It is within the limits then; whether its lines are right has still to be seen.

        Raises:
            ProxyError: as given to the constructor, no further byte can make it right.
        """
        end = data.find(_END, at) + len(_END)
        if end < len(_END):
            self._judge(data, at)
            return 0
        self.checked = 0
        if end - at > _SMALL_BYTES:
            self._measure(data, at, end, empty_lines=1)
        return end

    def _judge(self, data: bytes, at: int) -> None:
        """Refuse what can no longer become right."""
        if not self.checked:
            first = self._line.match(data, at)
            self.checked = first.end() - at if first else 0
        begun, start = self._begun, at
        if self.checked:
            lines = _FIELD_LINES.match(data, at + self.checked)
            begun, start = _FIELD_BEGUN, lines.end() if lines else at
            self.checked = start - at
        if begun.fullmatch(data, start) is None:
            raise self._refusal(Fault.BROKEN)
        if len(data) - at > _SMALL_BYTES:
            self._measure(data, at, len(data), empty_lines=0)

    def _measure(self, data: bytes, at: int, end: int, *, empty_lines: int) -> None:
        """Refuse what is beyond the limits, as far as it has come."""
        first = data.find(b"\r\n", at, end)
        if (first if first >= 0 else end) - at > FIRST_LINE_LIMIT_BYTES:
            raise self._refusal(Fault.FIRST_LINE_TOO_LONG)
        size = end - at
        if (
            size > HEAD_LIMIT_BYTES
            or data.count(b"\n", at, end) > 1 + FIELD_LIMIT + empty_lines
            or (
                size > FIELD_LINE_LIMIT_BYTES
                and max(map(len, data[at:end].split(b"\r\n"))) > FIELD_LINE_LIMIT_BYTES
            )
        ):
            raise self._refusal(Fault.TOO_LARGE)


def beginnings(*parts: bytes) -> re.Pattern[bytes]:
    """A pattern that every beginning of what these patterns match one after the other matches."""
    pattern = b""
    for part in reversed(parts):
        pattern = b"(?:" + part + pattern + b")?"
    return re.compile(pattern)
