"""One subscription to the engine's events, shared by all services of a process.

- A stream that breaks is opened again after a pause that grows while streams do not last.
- Whenever a stream stands, everyone who listens is woken: events in the gap are lost, so each
  has to look for itself, and only after the new subscription, lest there be another gap.
- An event says only that there is something to look at; the truth is what the engine shows.
  What can be learned from events alone is whether a container ended by itself (`signals`), and
  whether somebody else is working on it (`meddled_at`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from autostart_proxy.backends.docker.api import DockerClient, DockerRefusal
from autostart_proxy.backends.docker.container import HARMLESS_SIGNALS
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

_BY_SOMEBODYS_HAND = frozenset({"kill", "stop", "destroy"})
"""What never happens unless somebody asks for it."""

_LAST_OF_A_WORK = frozenset({"start", "stop", "destroy"})

_REMEMBERED = 64
"""How much of what others do is remembered; only the last second or so is of interest."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Signal:
    """What was last sent to a container, as the engine writes it, and when on the loop's clock."""

    number: str
    sent_at: float


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
        signals: what was sent to a container since it was started, by its id: by `docker stop`,
            `docker kill`, or what does the same.
        own_work: ids of containers that this process is stopping or having replaced just now.
    """

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._listeners: dict[Changes, Callable[[Labels], bool]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._meddling: deque[tuple[float, Labels]] = deque(maxlen=_REMEMBERED)
        self.signals: dict[str, Signal] = {}
        self.own_work: set[str] = set()

    @contextmanager
    def listen(self, wanted: Callable[[Labels], bool], changes: Changes) -> Iterator[None]:
        """Note changes to the containers with wanted labels while the block runs."""
        self._listeners[changes] = wanted
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            yield
        finally:
            del self._listeners[changes]
            if not self._listeners:
                self._reader.cancel()
                self._reader = None
                self.signals.clear()
                self.own_work.clear()
                self._meddling.clear()

    def meddled_at(self, wanted: Callable[[Labels], bool]) -> float:
        """When somebody else was last seen to signal, stop or remove a container with wanted
        labels, on the loop's clock; minus infinity: not lately, as far as anybody listened."""
        return max((at for at, labels in self._meddling if wanted(labels)), default=-math.inf)

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
        listeners = [each for each, wanted in self._listeners.items() if wanted(attributes)]
        if not listeners:
            return
        now = asyncio.get_running_loop().time()
        id, action = actor.get("ID", ""), event.get("Action")
        harmless = action == "kill" and attributes.get("signal") in HARMLESS_SIGNALS
        if action in _BY_SOMEBODYS_HAND and not harmless and id not in self.own_work:
            self._meddling.append((now, attributes))
        if action == "kill":
            self.signals[id] = Signal(attributes.get("signal", ""), now)
        elif action in ("start", "destroy"):
            self.signals.pop(id, None)
        if action in _LAST_OF_A_WORK:
            self.own_work.discard(id)
        for changes in listeners:
            changes.note()
