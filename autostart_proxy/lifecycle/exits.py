"""How parts of a service end, and what that says."""

from __future__ import annotations

from typing import Protocol

ASKED_TO_END = frozenset({0, 130, 137, 143})
"""Exit codes of a program that was told to end: 0, or 128 + SIGINT, SIGKILL, SIGTERM."""


class Exit(Protocol):
    """How a part of a service ended; its `str` describes it for the log.

    `code` is the exit status, 128 + signal number for a signal; `out_of_memory` says that the
    kernel killed it.
    """

    @property
    def code(self) -> int: ...
    @property
    def out_of_memory(self) -> bool: ...


def crashed(exit: Exit | None) -> bool:
    """Whether what ended was not asked to: a program that is told to end says so by its code."""
    return exit is not None and (exit.out_of_memory or exit.code not in ASKED_TO_END)
