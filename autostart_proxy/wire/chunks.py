"""Chunked bodies, in both directions (RFC 9112, section 7.1). Pure.

- Small chunks that arrive together go on as one. Extensions end here: whoever does not know one
  ignores it, and strict readers refuse some that are allowed.
- A chunk that has not arrived in full goes on as it comes, behind the size it was announced with.
- Trailers are held to the limits of a head, and kept until they are complete.
- Nobody is held up for long: at most so many chunks are read at a time. The rest is kept, and
  `behind` says so, until `feed` is called again.
"""

from __future__ import annotations

import re
from typing import Final

from autostart_proxy import errors
from autostart_proxy.wire.grammar import clean_trailers
from autostart_proxy.wire.heads import Fault, GrowingHead

LAST_CHUNK = b"0\r\n\r\n"

CHUNKS_AT_A_TIME = 1000
"""About half a millisecond's work."""

SIZE_LINE_LIMIT_BYTES = 256
"""A chunk-size line with its extensions; more serves only to waste memory and time."""

_EXTENSIONS = rb"[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*+"
# 15 hex digits stay below 2**60: no reader behind us can overflow.
_SIZE = rb"[0-9A-Fa-f]{1,15}+"
_SIZE_LINE = re.compile(rb"(" + _SIZE + rb")(?:" + _EXTENSIONS + rb")?\r\n")
# "5 " may still become "5 ;extension".
_SIZE_LINE_BEGUN = re.compile(rb"(?:" + _SIZE + rb"(?:[ \t]*+|(?:" + _EXTENSIONS + rb")?\r?))?")


def _size_lines(digits: int) -> dict[bytes, int]:
    sizes = range(16 ** (digits - 1), 16**digits)
    return {form % size: size for size in sizes for form in (b"%x\r\n", b"%X\r\n")}


# By their text: a search costs more than so small a chunk.
_ONE_DIGIT, _TWO_DIGITS = _size_lines(1), _size_lines(2)

_LARGE = 16**2
"""From this size on, a chunk costs less as it is than copied together with others."""


class Chunked:
    """A chunked body, passed on in chunks, or decoded for readers of HTTP/1.0.

    Args:
        refusal: what to raise where the framing is broken.
        decode: give back the payload alone.
    """

    __slots__ = ("_decode", "_in_trailers", "_kept", "_left", "_refusal", "_trailers", "behind",
                 "done", "size", "surplus")  # fmt: skip

    def __init__(self, refusal: type[errors.ProxyError], *, decode: bool = False) -> None:
        self._refusal: Final = refusal
        self._decode: Final = decode
        self._left = -1  # of a chunk that goes on as it comes; 0: its CRLF is next; -1: none does
        self._in_trailers = False
        self._trailers: GrowingHead | None = None
        self._kept = b""
        self.behind = False
        self.done = False
        self.surplus = b""
        self.size = 0

    def __repr__(self) -> str:
        where = "done" if self.done else "trailers" if self._in_trailers else "chunks"
        return f"<Chunked {where}, {self.size} bytes announced, {len(self._kept)} kept back>"

    def feed(self, data: bytes) -> bytes:
        if self._kept:
            data, self._kept = self._kept + data, b""
        if self._left > len(data):
            self._left -= len(data)
            return data
        out: list[bytes] = []
        at = 0
        self.behind = False
        if self._left >= 0:
            at = self._end_chunk(data, out)
        if self._left < 0 and not self._in_trailers:
            at = self._read_chunks(data, at, out)
        if self._in_trailers:
            self._finish(data[at:], out)
        return b"".join(out)

    def _end_chunk(self, data: bytes, out: list[bytes]) -> int:
        """Read to the end of a chunk that goes on as it comes."""
        left = self._left
        line_break = data[left : left + 2]
        if line_break == b"\r\n":
            out.append(data[:left] if self._decode else data[: left + 2])
            self._left = -1
            return left + 2
        self._await_line_break(line_break)
        out.append(data[:left])
        return len(data)

    def _await_line_break(self, begun: bytes) -> None:
        if begun and begun != b"\r":
            raise self._refusal(detail="a chunk is longer than its size")
        self._left, self._kept = 0, begun

    def _read_chunks(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Read chunks; returns how far."""
        merged: list[bytes] = []
        unchanged = at  # from here to `at`, `data` goes on as it is
        for _ in range(CHUNKS_AT_A_TIME):
            size, start = _ONE_DIGIT.get(data[at : at + 3], 0), at + 3
            if not size:
                size, start = _TWO_DIGITS.get(data[at : at + 4], 0), at + 4
                if not size:
                    size, start = self._read_size(data, at)
            stop = start + size
            if size <= 0 or data[stop : stop + 2] != b"\r\n":
                break
            if size < _LARGE or self._decode or b";" in data[at:start]:
                if unchanged < at:
                    out.append(data[unchanged:at])
                merged.append(data[start:stop])
                unchanged = at = stop + 2
            else:
                if merged:
                    self._merge(merged, out)
                    merged = []
                self.size += size
                at = stop + 2
        else:
            size = -1
            self.behind = at < len(data)
        self._merge(merged, out)
        if size > 0:
            self._begin_chunk(data, unchanged, at, start, stop, out)
            return len(data)
        out.append(data[unchanged:at])
        if size == 0:
            self._in_trailers = True
        else:
            self._kept = data[at:]
        return at

    def _read_size(self, data: bytes, at: int) -> tuple[int, int]:
        """Read a size line; returns the size (-1: the line is incomplete), and where it ends."""
        line = _SIZE_LINE.match(data, at)
        if line is None:
            begun = data[at : at + SIZE_LINE_LIMIT_BYTES + 1]
            if len(begun) > SIZE_LINE_LIMIT_BYTES or _SIZE_LINE_BEGUN.fullmatch(begun) is None:
                raise self._refusal(detail="a chunk-size line is not valid")
            return -1, at
        if line.end() - at > SIZE_LINE_LIMIT_BYTES:
            raise self._refusal(detail="a chunk-size line is too long")
        return int(line[1], 16), line.end()

    def _merge(self, chunks: list[bytes], out: list[bytes]) -> None:
        """Make one chunk of several."""
        payload = b"".join(chunks)
        self.size += len(payload)
        if self._decode:
            out.append(payload)
        elif payload:
            out += (b"%x\r\n" % len(payload), payload, b"\r\n")

    def _begin_chunk(
        self, data: bytes, unchanged: int, at: int, start: int, stop: int, out: list[bytes]
    ) -> None:
        """Let a chunk go on that has not come to its end; its size line stands at `at`."""
        self.size += stop - start
        self._left = stop - len(data)
        if self._left <= 0:
            self._await_line_break(data[stop:])
        if self._decode:
            out.append(data[start:stop])
        elif b";" in data[at:start]:
            out += (data[unchanged:at], b"%x\r\n" % (stop - start), data[start:stop])
        else:
            out.append(data[unchanged:stop])

    def _finish(self, data: bytes, out: list[bytes]) -> None:
        """Read the last chunk and the trailers, which are kept until they are complete."""
        if self._trailers is None:
            self._trailers = GrowingHead(_SIZE_LINE, _SIZE_LINE_BEGUN, self._trailer_refusal)
        # An empty section ends with the line break of the last chunk itself.
        end = self._trailers.end(data)
        if not end:
            self._kept = data
            return
        trailers = clean_trailers(data[data.index(b"\n") + 1 : end - 2])
        if trailers is None:
            raise self._trailer_refusal(Fault.BROKEN)
        self.surplus = data[end:]
        self.done = True
        if not self._decode:
            out.append(b"0\r\n" + trailers + b"\r\n")

    def _trailer_refusal(self, fault: Fault) -> errors.ProxyError:
        if fault is Fault.BROKEN:
            return self._refusal(detail="a trailer is not valid")
        if self._refusal is errors.BadRequest:
            return errors.HeadersTooLarge("The request trailers are too large.")
        return self._refusal(detail=f"trailers: {fault.value}")
