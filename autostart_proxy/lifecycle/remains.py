"""What is left running of a service that ended by itself, or was stopped by hand in part."""

from __future__ import annotations

LONGEST_SECONDS = 60.0
"""How long parts of a service that failed run on at the most."""


class Remains:
    """Since when something is left, and how long it may be.

    The next request may need it, and somebody may be working on it, so it is not stopped at once;
    but a dependency that nobody uses any more must not run for ever.

    All times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def __bool__(self) -> bool:
        return self._since is not None

    def see(self, left: bool, now: float) -> None:
        """Take in what is seen now."""
        if not left:
            self._since = None
        elif self._since is None:
            self._since = now

    def forget(self) -> None:
        """All of it runs, or none."""
        self._since = None

    def deadline(self, idle_timeout: float | None, *, failed: bool) -> float | None:
        """When it is to be stopped; None for never, as where nothing is left.

        Args:
            idle_timeout: of the service, which what is left outlives in no case.
            failed: whether the service ended by itself; what somebody stopped by hand in part may
                be left as long as it was awake without use.
        """
        if self._since is None or (idle_timeout is None and not failed):
            return None
        times = [LONGEST_SECONDS] if failed else []
        times += [] if idle_timeout is None else [idle_timeout]
        return self._since + min(times)
