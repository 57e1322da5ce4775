"""Places: how many of one kind may be here at once, where whoever comes later is refused.

Other than `turns`, nobody waits: what is counted here costs memory, disk or a connection already
while it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..contract.errors import QueueFull


class Places:
    """A limited number of places; all state belongs to the event loop.

    Args:
        limit: how many there are.
        what: takes them, in the plural, for the message.
        setting: the variable that raises the limit.
        retry_after: seconds after which one is likely to be free.
    """

    def __init__(self, limit: int, what: str, setting: str, retry_after: float) -> None:
        self.limit = limit
        self.taken = 0
        self._what = what
        self._setting = setting
        self._retry_after = retry_after

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place for as long as the context lasts.

        Raises:
            QueueFull: all are taken.
        """
        if self.taken >= self.limit:
            raise QueueFull(
                f"{self.taken} {self._what} already; try again later, or let the operator raise "
                f"{self._setting}",
                self._retry_after,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Room:
    """What many may keep in memory together; all state belongs to the event loop.

    Args:
        limit: bytes.
        what: takes them, in the plural, for the message.
        retry_after: seconds after which some are likely to be free.
    """

    def __init__(self, limit: int, what: str, retry_after: float) -> None:
        self.limit = limit
        self.taken = 0
        self._what = what
        self._retry_after = retry_after

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes so many bytes more, all given back at the end of the context.

        It raises `QueueFull` where others have taken them.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self.taken + size > self.limit:
                raise QueueFull(
                    f"{self._what} take {self.taken} bytes already; try again later",
                    self._retry_after,
                )
            mine += size
            self.taken += size

        try:
            yield take
        finally:
            self.taken -= mine
