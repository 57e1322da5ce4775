"""How long a start may take, how long each request waits for it, and how long a stop may take."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from autostart_proxy import errors
from autostart_proxy.lifecycle.events import Policy

STOP_MARGIN_SECONDS = 60.0
"""How much longer than `stop_timeout` a stop may take: parts are stopped one after another."""

LONGEST_OWN_GRACE_SECONDS = 900.0
"""How long the grace period may be that a part has by itself."""

STOP_AGAIN_SECONDS = 5.0
"""How soon after a stop that reached nobody the next is tried, however short `idle_timeout` is."""

FAILURE_SHOWN_SECONDS = 60.0
"""How long a failed service stays `failed` when nobody asks for it again."""

L = TypeVar("L", bound=Hashable)


class Patience:
    """The clock of one start.

    A request waits for `start_timeout`: from its arrival, or from the first container's start if it
    was there before. The start itself goes on: what initialises a database for minutes must not be
    killed in the middle of it, and a later request finds it done. It may take `prepare_timeout` for
    images, and as long again from the first container's start.

    All times are seconds of one monotonic clock.

    Attributes:
        launched_at: when the first container was started; None while images are pulled or built.
        worn: whether it has been noticed that `start_timeout` is over since then.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.launched_at: float | None = None
        self.worn = False

    def deadline(self, policy: Policy) -> float:
        """When the start as a whole is given up."""
        if self.launched_at is None:
            return self.since + policy.prepare_timeout + policy.start_timeout
        return self.launched_at + max(policy.prepare_timeout, policy.start_timeout)

    @property
    def too_late(self) -> errors.StartError:
        """What is to be said when the deadline is over."""
        if self.launched_at is None:
            return errors.StartFailed("The service could not be prepared in time.")
        return errors.HoldExpired()

    def due(self, held: Mapping[L, float], policy: Policy) -> float:
        """When somebody or something has waited long enough, at the latest."""
        times = [self.deadline(policy), *self.hold_deadlines(held, policy).values()]
        if self.launched_at is not None and not self.worn:
            times.append(self.launched_at + policy.start_timeout)
        return min(times)

    def wears_out(self, now: float, policy: Policy) -> bool:
        """Whether `start_timeout` is over just now, for the first time; takes note of it."""
        if self.worn or self.launched_at is None:
            return False
        self.worn = now >= self.launched_at + policy.start_timeout
        return self.worn

    def hold_deadlines(self, held: Mapping[L, float], policy: Policy) -> dict[L, float]:
        """When each waiting request gives up.

        Args:
            held: when each arrived.
        """
        begun = self.since if self.launched_at is None else self.launched_at
        return {lease: max(at, begun) + policy.start_timeout for lease, at in held.items()}


def stop_deadline(since: float, policy: Policy) -> float:
    """When a stop that began then is given up."""
    grace = policy.stop_timeout
    if grace is None:
        grace = LONGEST_OWN_GRACE_SECONDS
    return since + grace + STOP_MARGIN_SECONDS
