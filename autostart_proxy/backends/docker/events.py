"""One subscription to the engine's events, shared by all services of a process.

- A stream that breaks is opened again after a pause that grows while streams do not last.
- Whenever a stream stands, everyone who listens is woken: events in the gap are lost, so each
  has to look for itself, and only after the new subscription, lest there be another gap.
- An event says only that there is something to look at; the truth is what the engine shows.
  The one thing that can be learned from events alone is who ended a container (`told_to_end`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

from autostart_proxy.backends.docker.api import DockerClient, DockerRefusal
from autostart_proxy.errors import BackendUnreachable

_log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
LASTING_SECONDS = 10.0
"""A stream that stood this long is no sign of trouble when it breaks: the pause starts anew."""

_KINDS = (
    "start",
    "die",
    "kill",
    "stop",
    "oom",
    "pause",
    "unpause",
    "destroy",
    "health_status",
)

_HARMLESS_SIGNALS = frozenset({"1", "10", "12"})
"""HUP, USR1, USR2: a `docker kill -s HUP` asks for a reload, not for an end."""


class Changes:
    """What one listener has not looked at yet."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def note(self) -> None:
        """Something has changed, or may have."""
        self._event.set()

    async def wait(self, limit_seconds: float | None = None) -> None:
        """Return once something has changed since the last call, or after the limit."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()


class Events:
    """The subscription: stands while somebody listens.

    Attributes:
        told_to_end: ids of containers that were sent a signal since they were started, by
            `docker stop` or `docker kill`: their end is no crash.
    """

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._listeners: dict[Changes, str] = {}
        self._reader: asyncio.Task[None] | None = None
        self.told_to_end: set[str] = set()

    @contextmanager
    def listen(self, project: str, changes: Changes) -> Iterator[None]:
        """Note changes to a project's containers while the block runs."""
        self._listeners[changes] = project
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            yield
        finally:
            del self._listeners[changes]
            if not self._listeners:
                self._reader.cancel()
                self._reader = None
                self.told_to_end.clear()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        told = False
        while True:
            stood_since = None
            try:
                async with aclosing(self._client.events(*_KINDS)) as events:
                    async for event in events:
                        if event is None:
                            stood_since = loop.time()
                            if told:
                                _log.info("event stream stands again")
                            told = False
                            self._wake_all()
                        else:
                            self._take(event)
            except (BackendUnreachable, DockerRefusal) as cause:
                if stood_since is not None and loop.time() - stood_since > LASTING_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                if not told:
                    _log.warning("event stream broken", extra={"reason": str(cause)})
                told = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _wake_all(self) -> None:
        for changes in self._listeners:
            changes.note()

    def _take(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        attributes = cast(dict[str, str], actor.get("Attributes") or {})
        project = attributes.get("com.docker.compose.project")
        if project not in self._listeners.values():
            return
        match event.get("Action"):
            case "kill" if attributes.get("signal") not in _HARMLESS_SIGNALS:
                self.told_to_end.add(actor["ID"])
            case "start" | "destroy":
                self.told_to_end.discard(actor["ID"])
        for changes, wanted in self._listeners.items():
            if wanted == project:
                changes.note()
