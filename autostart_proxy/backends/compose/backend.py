"""A Compose project, or a part of it, as a service.

- Containers that exist and are what the Compose file says are started by the engine directly, in
  the order of `depends_on`: that is the fast way, and what a wake normally is. Compose itself is
  asked only to create what is missing or has changed; it never starts anything here.
- What is found at the engine is the truth. An observation that was made while the service was
  being started or stopped is thrown away and made again, so that none is ever out of date.
- Only containers that carry the project's label are looked at or touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import ExitStack

from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.backends.cancellation import to_the_end
from autostart_proxy.backends.compose.cli import ComposeFolder
from autostart_proxy.backends.compose.neighbours import Neighbours
from autostart_proxy.backends.compose.project import Project, Snapshot, Unit
from autostart_proxy.backends.docker.api import DockerClient, DockerRefusal, docker_host
from autostart_proxy.backends.docker.container import Container
from autostart_proxy.backends.docker.events import Changes, Events
from autostart_proxy.backends.folders import folder_problems
from autostart_proxy.backends.tail import KEPT_LINES
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.units import ComposeUnit
from autostart_proxy.errors import (
    BackendRefused,
    BackendUnreachable,
    ContainerExited,
    DockerUnavailable,
    StartFailed,
    StopFailed,
)

_log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.5
"""How often a start looks at what it waits for even if no event comes: the stream may be down."""

_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 4.0

_UNREADABLE_SECONDS = 30.0
"""How often a Compose file is read again that made no sense and has no containers."""


COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def open_backends() -> Callable[[ServiceConfig], ComposeBackend]:
    """Return what makes the backends of a fleet; all of them share one client of the engine."""
    client = DockerClient(docker_host())
    events, neighbours = Events(client), Neighbours()

    def make(config: ServiceConfig) -> ComposeBackend:
        if not isinstance(config.unit, ComposeUnit):
            raise TypeError("a Compose project needs a folder")
        return ComposeBackend(config.unit, client, events, neighbours)

    return make


def missing(unit: ComposeUnit) -> Iterator[tuple[str, str]]:
    """Yield the keys that name something that is not there, and why not."""
    folder = unit.folder
    yield from (("composeDir", reason) for reason in folder_problems(folder))
    if folder.is_dir() and not any((folder / name).is_file() for name in COMPOSE_FILES):
        yield "composeDir", f"{folder} holds no Compose file; put a {COMPOSE_FILES[0]} there"


class ComposeBackend:
    """Starts, stops and watches the containers of one service.

    Args:
        wanted: the folder, the containers, and where they publish the service.
        client, events, neighbours: shared by all of the fleet that are made of Compose projects.
    """

    def __init__(
        self, wanted: ComposeUnit, client: DockerClient, events: Events, neighbours: Neighbours
    ) -> None:
        self._wanted = wanted
        self._client = client
        self._events = events
        self._neighbours = neighbours
        self._folder = ComposeFolder(wanted.folder, wanted.containers, client.address)
        self._watches: set[Changes] = set()
        self._closed = False
        self._epoch = 0
        """Counts beginnings and ends of starts and stops."""
        self._lived: set[str] = set()
        """Ids of containers that were seen running since the last start or stop began."""

    async def start(self, launched: Callable[[], None]) -> Upstream:
        """Start what is not running; see `Backend.start`."""
        self._turn()
        try:
            unit = await self._read_compose_file()
            seen = await self._prepare(unit)
            launched()
            for _ in unit.services:
                try:
                    return await self._bring_up(unit, seen)
                except _Gone as gone:
                    await self._folder.create_anew(gone.service)
                    seen = await self._look(unit)
            return await self._bring_up(unit, seen)
        except (DockerRefusal, _Gone) as refusal:
            raise BackendRefused(StartFailed(detail=str(refusal))) from refusal
        finally:
            self._turn(forget=False)

    async def verify(self) -> None:
        """Nothing to prove yet."""

    async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
        """Stop what nobody else needs; see `Backend.stop` and `Unit.to_stop`."""
        self._turn()
        try:
            unit = await self._known_unit()
            if unit is not None:
                await self._bring_down(unit, 10.0 if grace_seconds is None else grace_seconds)
            return ()
        except DockerRefusal as refusal:
            raise BackendRefused(StopFailed(detail=str(refusal))) from refusal
        finally:
            self._turn()

    async def observe(self) -> Observation:
        """Look once; see `Backend.observe`."""
        try:
            while True:
                epoch = self._epoch
                seen = await self._observe()
                if epoch == self._epoch:
                    return seen
        except DockerRefusal as refusal:
            raise BackendUnreachable(str(refusal)) from refusal

    async def watch(self) -> AsyncIterator[Observation]:
        """Yield an observation now and after every event; see `Backend.watch`."""
        changes = Changes()
        listening_to = ""
        retry_seconds = _FIRST_RETRY_SECONDS
        self._watches.add(changes)
        try:
            with ExitStack() as listening:
                while not self._closed:
                    try:
                        unit = await self._known_unit()
                        if unit is not None and unit.project.name != listening_to:
                            listening.close()
                            listening_to = unit.project.name
                            # Before the look, lest something happen in between.
                            listening.enter_context(self._events.listen(listening_to, changes))
                        seen = await self.observe()
                    except BackendUnreachable as cause:
                        _log.debug("cannot look", extra={"reason": str(cause)})
                        await changes.wait(retry_seconds)
                        retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)
                        continue
                    retry_seconds = _FIRST_RETRY_SECONDS
                    yield seen
                    await changes.wait(None if listening_to else _UNREADABLE_SECONDS)
        finally:
            self._watches.discard(changes)

    async def log_tail(self) -> tuple[str, ...]:
        """The last lines of the containers that must run; see `Backend.log_tail`."""
        try:
            unit = await self._known_unit()
            if unit is None:
                return ()
            seen = await self._look(unit)
            required = [each for service in sorted(unit.required) for each in seen.of(service)]
            tails = [(each, await self._client.log_tail(each)) for each in required]
        except (BackendUnreachable, DockerRefusal):
            return ()
        if len(tails) == 1:
            return tails[0][1]
        share = KEPT_LINES // max(1, len(tails))
        return tuple(f"{each.service}: {line}" for each, tail in tails for line in tail[-share:])

    async def close(self) -> None:
        """End the watches; the containers are left as they are."""
        self._closed = True
        self._neighbours.leave(self)
        self._turn()

    def _turn(self, *, forget: bool = True) -> None:
        """A start or a stop begins or ends: what is being observed just now is no longer true."""
        self._epoch += 1
        if forget:
            self._lived.clear()
        for changes in self._watches:
            changes.note()

    # What there is.

    async def _read_compose_file(self) -> Unit:
        """What the Compose file says now; asks the engine first, since Compose is slow to."""
        if self._folder.known is None:
            await self._client.ping()
        unit = await self._folder.unit()
        self._neighbours.note(self, unit)
        return unit

    async def _known_unit(self) -> Unit | None:
        """What is known without reading a Compose file that was read before.

        Where the file cannot be read, the labels of the containers made from it must do; None
        where there is not even one, or more than one project was made from the folder.
        """
        if self._folder.known is not None:
            return self._folder.known
        try:
            return await self._read_compose_file()
        except BackendRefused as refusal:
            _log.warning("Compose file not understood", extra={"reason": str(refusal)})
        folder = str(self._wanted.folder)
        containers = await self._client.containers("project.working_dir", folder)
        projects = {each.project for each in containers}
        if len(projects) != 1:
            return None
        try:
            return Project.from_containers(projects.pop(), containers).unit(self._wanted.containers)
        except KeyError:
            return None

    async def _look(self, unit: Unit) -> Snapshot:
        containers = await self._client.containers("project", unit.project.name)
        seen = Snapshot.of_all(containers, self._events.told_to_end)
        self._lived.update(
            each.id
            for service in unit.services
            for each in seen.of(service)
            if each.status in ("running", "paused", "restarting")
        )
        return seen

    async def _observe(self) -> Observation:
        unit = await self._known_unit()
        if unit is None:
            return Observation(running=False)
        seen = await self._look(unit)
        published = unit.published(seen, self._wanted.port)
        healthy = None
        if published is not None and published.health is not None:
            healthy = published.status == "running" and published.health == "healthy"
        ended = [
            each
            for each in unit.failed(seen, unit.services)
            if each.id in self._lived and each.id not in seen.told_to_end
        ]
        return Observation(
            running=unit.all_up(seen),
            healthy=healthy,
            exit=await self._exit(ended[0]) if ended else None,
        )

    async def _exit(self, container: Container) -> Exit:
        return Exit(
            part=container.service,
            code=container.exit_code,
            out_of_memory=container.out_of_memory,
            log_tail=await self._client.log_tail(container),
        )

    # Starting.

    async def _prepare(self, unit: Unit) -> Snapshot:
        """Have Compose create what is missing or no longer what file and image say.

        What runs is never replaced: that would cut requests of somebody who uses it.
        """
        seen = await self._look(unit)
        to_start = unit.to_start(seen)
        if to_start and (unit.missing(seen) or not await self._are_current(unit, to_start, seen)):
            return await self._create(unit)
        return seen

    async def _are_current(self, unit: Unit, services: Iterable[str], seen: Snapshot) -> bool:
        for service in services:
            for each in seen.of(service):
                image = await self._client.image_id(each.image)
                if not self._folder.is_current(unit.project.services[service], each, image):
                    return False
        return True

    async def _create(self, unit: Unit) -> Snapshot:
        await self._folder.create(sorted(unit.required) if self._wanted.containers else ())
        seen = await self._look(unit)
        for service in unit.services:
            for each in seen.of(service):
                image = await self._client.image_id(each.image)
                self._folder.accept(unit.project.services[service], each, image)
        return seen

    async def _bring_up(self, unit: Unit, seen: Snapshot) -> Upstream:
        """Start what is down, each service once what it waits for has happened."""
        project, changes = unit.project.name, Changes()
        lock = self._neighbours.lock(project)
        crossed = lock.locked()
        async with lock:
            with self._events.listen(project, changes):
                if crossed:  # somebody else has just started or stopped something
                    seen = await self._look(unit)
                waiting = unit.to_start(seen)
                while True:
                    await self._check(unit, seen, waiting)
                    due = [each for each in waiting if unit.is_due(each, seen, waiting)]
                    if due:
                        await to_the_end(self._start_services(due, seen))
                        waiting = [each for each in waiting if each not in due]
                    elif waiting:
                        await changes.wait(_LOOK_AGAIN_SECONDS)
                    else:
                        break
                    seen = await self._look(unit)
        published = unit.published(seen, self._wanted.port)
        return Upstream(
            self._wanted.host,
            self._wanted.port,
            has_healthcheck=published is not None and published.health is not None,
        )

    async def _check(self, unit: Unit, seen: Snapshot, waiting: Collection[str]) -> None:
        """Give up at once where a start cannot succeed any more."""
        for service in unit.missing(seen):
            raise _Gone(service, "it has no container")
        begun = [each for each in unit.services if each not in waiting]
        for container in unit.failed(seen, begun):
            raise BackendRefused(ContainerExited(detail=str(await self._exit(container))))
        for service in waiting:
            if blocker := unit.blocker(service, seen):
                raise BackendRefused(StartFailed(detail=blocker))

    async def _start_services(self, services: Iterable[str], seen: Snapshot) -> None:
        await _all([self._revive(each) for service in services for each in seen.of(service)])

    async def _revive(self, container: Container) -> None:
        client = self._client
        self._events.told_to_end.discard(container.id)  # that was its last run
        try:
            if container.status == "paused":
                await client.unpause(container)
            else:
                await client.start(container)
        except DockerRefusal as refusal:
            if refusal.status == 404:
                raise _Gone(container.service, str(refusal)) from refusal
            raise
        self._lived.add(container.id)

    # Stopping.

    async def _bring_down(self, unit: Unit, grace_seconds: float) -> None:
        project = unit.project.name
        async with self._neighbours.lock(project):
            seen = await self._look(unit)
            for group in unit.to_stop(seen, self._neighbours.beside(self, project)):
                await to_the_end(self._stop_services(group, seen, grace_seconds))

    async def _stop_services(
        self, services: Iterable[str], seen: Snapshot, grace_seconds: float
    ) -> None:
        running = [
            each
            for service in services
            for each in seen.of(service)
            if each.status in ("running", "paused", "restarting")
        ]
        try:
            await _all([self._client.stop(each, grace_seconds) for each in running])
        except BackendUnreachable as silence:  # it may still do what it was told
            raise BackendRefused(DockerUnavailable(detail=str(silence))) from silence


class _Gone(Exception):
    """A container, or the network that it was created in, was removed."""

    def __init__(self, service: str, reason: str) -> None:
        self.service = service
        super().__init__(f"{service} cannot be started: {reason}")


async def _all(calls: list[Coroutine[None, None, None]]) -> None:
    """Make the calls at the same time; fail as the first that failed, once all are over."""
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
