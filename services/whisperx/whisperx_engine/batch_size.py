"""How many stretches of speech are decoded at once: as many as there is memory for."""

from __future__ import annotations

from collections.abc import Iterator

from speech_service.errors import SpeechError

DEFAULT = 8
"""Stretches at once where nothing is configured; a GPU that is too small for them says so."""


class OutOfMemory(SpeechError):
    """Not even one stretch of speech fits into memory."""

    status = 503
    code = "out_of_memory"


def batch_sizes(wanted: int) -> Iterator[int]:
    """Yield the sizes to try, one after the other: each half of the one before, down to 1.

    Args:
        wanted: 0 means the default.
    """
    size = wanted or DEFAULT
    while size >= 1:
        yield size
        size //= 2


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error of torch or CTranslate2 means that memory did not suffice."""
    return "out of memory" in str(error).lower()
