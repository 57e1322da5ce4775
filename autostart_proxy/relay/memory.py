"""Memory goes back to the system when those for whom it was used have left.

A client that does not read what it asked for costs half a megabyte. What is free again glibc keeps
as long as anything above it is in use: one rush of them would make the proxy large for good.
"""

from __future__ import annotations

LEFT = 32
"""Clients that have left since memory was last given back: at most 16 MB lie idle."""


class Memory:
    """Watches how many clients there are."""

    __slots__ = ("_most",)

    def __init__(self) -> None:
        self._most = 0

    def __repr__(self) -> str:
        return f"<Memory of {self._most} clients>"

    def watch(self, clients: int) -> None:
        """Give back what is free, if many clients fewer are there than at some time before."""
        self._most = max(self._most, clients)
        if self._most - clients >= LEFT:
            self._most = clients
            give_back()


def give_back() -> bool:
    """Return memory that is free to the system; some milliseconds for 100 MB of it.

    Returns:
        Whether there was any; False too where the C library is not glibc.
    """
    # A megabyte, for those who never need it.
    import ctypes

    try:
        trim = ctypes.CDLL(None).malloc_trim  # malloc_trim(3)
    except (AttributeError, OSError):
        return False
    return bool(trim(0))
