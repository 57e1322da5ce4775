"""Services of one fleet that are parts of the same Compose project."""

from __future__ import annotations

import asyncio

from autostart_proxy.backends.compose.project import Unit


class Neighbours:
    """What each backend consists of, so that none stops what another needs."""

    def __init__(self) -> None:
        self._units: dict[object, Unit] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def note(self, backend: object, unit: Unit) -> None:
        """Remember what a backend consists of, by the Compose file that it read last."""
        self._units[backend] = unit

    def leave(self, backend: object) -> None:
        """Forget a backend; it needs nothing any more."""
        self._units.pop(backend, None)

    def beside(self, backend: object, project: str) -> list[Unit]:
        """What the others in a project consist of."""
        return [
            unit
            for other, unit in self._units.items()
            if other is not backend and unit.project.name == project
        ]

    def lock(self, project: str) -> asyncio.Lock:
        """Held while containers of a project are started or stopped.

        Two services in one project may share a dependency: one must not stop it while the other
        relies on having seen it run.
        """
        return self._locks.setdefault(project, asyncio.Lock())
