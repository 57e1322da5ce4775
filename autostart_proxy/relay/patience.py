"""How long is waited for a peer that is due: time limits without a timer per request.

- The server's sweep asks twice a second; what is due is timed from when it was first seen so.
- A body must come at a lowest rate: each byte buys a hundredth of a second, and nobody has more
  than `bodyTimeout` in hand. So a byte a minute keeps no service awake, and a pause is forgiven.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol, assert_never

from autostart_proxy import errors

STALL_SECONDS = 60.0
"""How long a client may read nothing of what waits for it, or a tunnel be open at one end only."""

RESPONSE_HEAD_SECONDS = 60.0
"""From the first byte of a response's head to its end."""

LOWEST_BYTES_PER_SECOND: Final = 100


class Due(Enum):
    """What has to come before anything goes on."""

    NOTHING = "nothing"
    BODY = "more of the request's body"
    RESPONSE = "the first byte of a response"
    HEAD = "the rest of a response's head"
    END = "the other end of a tunnel"


class Watched(Protocol):
    """What is asked of an exchange, and of a tunnel."""

    bytes_in: int
    bytes_out: int

    @property
    def interims(self) -> int:
        """How many interim responses there were: after each, the next one is waited for anew."""
        ...

    def due(self) -> tuple[Due, float | None]:
        """What is due, and for how many seconds that is waited for; None: as long as it takes."""
        ...


class Patience:
    """Watches the exchanges of one client, one after the other."""

    __slots__ = ("_interims", "_moved", "_since", "_unread", "_unread_since", "_watched", "_what")

    def __init__(self) -> None:
        self._watched: Watched | None = None
        self._what = Due.NOTHING
        self._interims = self._moved = 0
        self._since = 0.0
        self._unread = 0, 0
        self._unread_since = 0.0

    def __repr__(self) -> str:
        return f"<Patience with {self._what.value}>"

    def forget(self) -> None:
        """Nothing is going on."""
        self._watched = None

    def is_lost(self, watched: Watched, now: float) -> errors.ProxyError | None:
        """Look at what is due; returns how to end the exchange if that was too long."""
        what, limit_seconds = watched.due()
        moved = watched.bytes_in if what is Due.BODY else watched.bytes_in + watched.bytes_out
        same = watched is self._watched and what is self._what
        if not same or watched.interims != self._interims:
            self._watched, self._what, self._interims = watched, what, watched.interims
            self._since = now
        elif what is Due.BODY:
            earned_seconds = (moved - self._moved) / LOWEST_BYTES_PER_SECOND
            self._since = min(now, self._since + earned_seconds)
        elif what is Due.END and moved != self._moved:
            self._since = now
        self._moved = moved
        if limit_seconds is None or now - self._since <= limit_seconds:
            return None
        match what:
            case Due.BODY:
                slow = f"its body came slower than {LOWEST_BYTES_PER_SECOND} bytes per second"
                return errors.RequestTimeout(detail=slow)
            case Due.RESPONSE | Due.HEAD:
                return errors.ResponseTimeout(detail=f"{what.value} took over {limit_seconds:g} s")
            case Due.END | Due.NOTHING:
                return errors.RequestTimeout(detail=what.value)
            case _:
                assert_never(what)

    def is_unread(self, sent: int, waiting: int, now: float) -> bool:
        """Whether a client whose write buffer is full has read nothing for too long."""
        if (sent, waiting) != self._unread:
            self._unread, self._unread_since = (sent, waiting), now
        return now - self._unread_since > STALL_SECONDS
