"""What all services of a process share of one Docker Engine."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from autostart_proxy.backends.compose.project import Part
from autostart_proxy.backends.docker.api import Engine
from autostart_proxy.backends.docker.events import Events


class Daemon:
    """A Docker Engine with its event stream.

    Attributes:
        parts: what each service's backend consists of, so that neighbours in one project can
            spare each other's dependencies.
    """

    def __init__(self, address: str) -> None:
        self.engine = Engine(address)
        self.events = Events(self.engine)
        self.parts: dict[object, Part] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @staticmethod
    def shared(address: str) -> Daemon:
        """The one of the running event loop."""
        daemons = _daemons.setdefault(asyncio.get_running_loop(), {})
        if address not in daemons:
            daemons[address] = Daemon(address)
        return daemons[address]

    def lock(self, project: str) -> asyncio.Lock:
        """Held while containers of a project are started or stopped.

        Two services in one project may share a dependency: one must not stop it while the other
        relies on having seen it run.
        """
        return self._locks.setdefault(project, asyncio.Lock())


_daemons: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Daemon]] = WeakKeyDictionary()
