"""The requests of one service: those that wait for it, and those that it serves.

A lease is in one of the two, never in both, from its arrival until it is refused or has departed.
"""

from __future__ import annotations

from typing import Generic

from autostart_proxy import errors
from autostart_proxy.lifecycle.events import Admit, L, Refuse


class IllegalEvent(Exception):
    """An event that cannot happen now: a bug in the caller, never a client's fault."""


class Leases(Generic[L]):
    """Keeps the books; when to admit or refuse is decided elsewhere.

    Attributes:
        held: waiting leases and when each arrived, oldest first.
        flowing: admitted leases and when each arrived.
        cause: what the first of those who wait is, for people.
    """

    def __init__(self) -> None:
        self.held: dict[L, float] = {}
        self.flowing: dict[L, float] = {}
        self.cause = ""

    def hold(self, lease: L, cause: str, now: float) -> None:
        """Let a new lease wait."""
        if not self.held:
            self.cause = cause
        self.held[lease] = now

    def check_new(self, lease: L) -> None:
        """Raise `IllegalEvent` for a lease that has arrived before."""
        if lease in self.flowing or lease in self.held:
            raise IllegalEvent("this lease has arrived before")

    def depart(self, lease: L) -> bool:
        """Forget a lease; return whether it flowed.

        Raises:
            IllegalEvent: it is unknown, or over.
        """
        if self.held.pop(lease, None) is not None:
            return False
        if self.flowing.pop(lease, None) is None:
            raise IllegalEvent("this lease is unknown or over")
        return True

    def give_back(self, lease: L) -> None:
        """Let an admitted lease wait again, with the time it has.

        Raises:
            IllegalEvent: it was not admitted.
        """
        if lease not in self.flowing:
            raise IllegalEvent("only an admitted lease can return")
        self.held[lease] = self.flowing.pop(lease)
        self.cause = "a request that found nobody listening"

    def admit_all(self) -> list[Admit[L]]:
        """Let everybody flow who waits, the oldest first."""
        admitted = [Admit(lease) for lease in self.held]
        self.flowing.update(self.held)
        self.held.clear()
        return admitted

    def refuse(self, lease: L, reason: errors.ProxyError) -> Refuse[L]:
        """Send one away that waits."""
        del self.held[lease]
        return Refuse(lease, reason)

    def refuse_all(self, reason: errors.ProxyError) -> list[Refuse[L]]:
        """Send everybody away who waits."""
        return [self.refuse(lease, reason) for lease in list(self.held)]
