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
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import ExitStack

from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.backends.cancellation import to_the_end
from autostart_proxy.backends.compose.cli import ComposeFolder
from autostart_proxy.backends.compose.project import Part, Project, Sight
from autostart_proxy.backends.compose.shared import Daemon
from autostart_proxy.backends.docker.api import EngineRefusal, docker_host
from autostart_proxy.backends.docker.container import Container
from autostart_proxy.backends.docker.events import Changes
from autostart_proxy.backends.tail import KEPT_LINES
from autostart_proxy.config.model import ServiceConfig
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


class ComposeBackend:
    """Starts, stops and watches the containers of one service.

    Args:
        config: `compose_dir`, `containers`, and the port that the service publishes.
    """

    def __init__(self, config: ServiceConfig) -> None:
        if config.compose_dir is None:
            raise ValueError("a Compose project needs a folder")
        self._config = config
        self._host = docker_host()
        self._folder = ComposeFolder(config.compose_dir, config.containers, self._host)
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
            part = await self._read_compose_file()
            sight = await self._prepare(part)
            launched()
            for _ in part.services:
                try:
                    return await self._bring_up(part, sight)
                except _Gone as gone:
                    await self._folder.create_anew(gone.service)
                    sight = await self._look(part)
            return await self._bring_up(part, sight)
        except (EngineRefusal, _Gone) as refusal:
            raise BackendRefused(StartFailed(detail=str(refusal))) from refusal
        finally:
            self._turn(forget=False)

    async def stop(self, grace_seconds: float) -> None:
        """Stop what nobody else needs; see `Backend.stop` and `Part.to_stop`."""
        self._turn()
        try:
            part = await self._known_part()
            if part is not None:
                await self._bring_down(part, grace_seconds)
        except EngineRefusal as refusal:
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
        except EngineRefusal as refusal:
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
                        part = await self._known_part()
                        if part is not None and part.project.name != listening_to:
                            listening.close()
                            listening_to = part.project.name
                            # Before the look, lest something happen in between.
                            listening.enter_context(
                                self._daemon.events.listen(listening_to, changes)
                            )
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
            part = await self._known_part()
            if part is None:
                return ()
            sight = await self._look(part)
            named = [each for service in sorted(part.named) for each in sight.of(service)]
            tails = [(each, await self._daemon.engine.log_tail(each)) for each in named]
        except (BackendUnreachable, EngineRefusal):
            return ()
        if len(tails) == 1:
            return tails[0][1]
        share = KEPT_LINES // max(1, len(tails))
        return tuple(f"{each.service}: {line}" for each, tail in tails for line in tail[-share:])

    async def close(self) -> None:
        """End the watches; the containers are left as they are."""
        self._closed = True
        self._daemon.parts.pop(self, None)
        self._turn()

    @property
    def _daemon(self) -> Daemon:
        return Daemon.shared(self._host)

    def _turn(self, *, forget: bool = True) -> None:
        """A start or a stop begins or ends: what is being observed just now is no longer true."""
        self._epoch += 1
        if forget:
            self._lived.clear()
        for changes in self._watches:
            changes.note()

    # What there is.

    async def _read_compose_file(self) -> Part:
        """What the Compose file says now; asks the engine first, since Compose is slow to."""
        if self._folder.known is None:
            await self._daemon.engine.ping()
        part = await self._folder.part()
        self._daemon.parts[self] = part
        return part

    async def _known_part(self) -> Part | None:
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
        folder = str(self._config.compose_dir)
        containers = await self._daemon.engine.containers("project.working_dir", folder)
        projects = {each.project for each in containers}
        if len(projects) != 1:
            return None
        try:
            return Project.from_containers(projects.pop(), containers).part(self._config.containers)
        except KeyError:
            return None

    async def _look(self, part: Part) -> Sight:
        containers = await self._daemon.engine.containers("project", part.project.name)
        sight = Sight.of_all(containers, self._daemon.events.told_to_end)
        self._lived.update(
            each.id
            for service in part.services
            for each in sight.of(service)
            if each.status in ("running", "paused", "restarting")
        )
        return sight

    async def _observe(self) -> Observation:
        part = await self._known_part()
        if part is None:
            return Observation(running=False)
        sight = await self._look(part)
        front = part.front(sight, self._config.proxy_port)
        healthy = None
        if front is not None and front.health is not None:
            healthy = front.status == "running" and front.health == "healthy"
        ended = [
            each
            for each in part.casualties(sight, part.services)
            if each.id in self._lived and each.id not in sight.told_to_end
        ]
        return Observation(
            running=part.all_up(sight),
            healthy=healthy,
            exit=await self._exit(ended[0]) if ended else None,
        )

    async def _exit(self, container: Container) -> Exit:
        return Exit(
            part=container.service,
            code=container.exit_code,
            out_of_memory=container.out_of_memory,
            log_tail=await self._daemon.engine.log_tail(container),
        )

    # Starting.

    async def _prepare(self, part: Part) -> Sight:
        """Have Compose create what is missing or no longer what file and image say.

        What runs is never replaced: that would cut requests of somebody who uses it.
        """
        sight = await self._look(part)
        to_start = part.to_start(sight)
        if to_start and (part.missing(sight) or not await self._are_current(part, to_start, sight)):
            return await self._create(part)
        return sight

    async def _are_current(self, part: Part, services: Iterable[str], sight: Sight) -> bool:
        for service in services:
            for each in sight.of(service):
                image = await self._daemon.engine.image_id(each.image)
                if not self._folder.is_current(part.project.services[service], each, image):
                    return False
        return True

    async def _create(self, part: Part) -> Sight:
        await self._folder.create(sorted(part.named) if self._config.containers else ())
        sight = await self._look(part)
        for service in part.services:
            for each in sight.of(service):
                image = await self._daemon.engine.image_id(each.image)
                self._folder.accept(part.project.services[service], each, image)
        return sight

    async def _bring_up(self, part: Part, sight: Sight) -> Upstream:
        """Start what is down, each service once what it waits for has happened."""
        project, changes = part.project.name, Changes()
        lock = self._daemon.lock(project)
        crossed = lock.locked()
        async with lock:
            with self._daemon.events.listen(project, changes):
                if crossed:  # somebody else has just started or stopped something
                    sight = await self._look(part)
                waiting = part.to_start(sight)
                while True:
                    await self._check(part, sight, waiting)
                    due = [each for each in waiting if part.is_due(each, sight, waiting)]
                    if due:
                        await to_the_end(self._start_services(due, sight))
                        waiting = [each for each in waiting if each not in due]
                    elif waiting:
                        await changes.wait(_LOOK_AGAIN_SECONDS)
                    else:
                        break
                    sight = await self._look(part)
        front = part.front(sight, self._config.proxy_port)
        return Upstream(
            self._config.proxy_host,
            self._config.proxy_port,
            has_healthcheck=front is not None and front.health is not None,
        )

    async def _check(self, part: Part, sight: Sight, waiting: Collection[str]) -> None:
        """Give up at once where a start cannot succeed any more."""
        for service in part.missing(sight):
            raise _Gone(service, "it has no container")
        begun = [each for each in part.services if each not in waiting]
        for container in part.casualties(sight, begun):
            raise BackendRefused(ContainerExited(detail=str(await self._exit(container))))
        for service in waiting:
            if obstacle := part.obstacle(service, sight):
                raise BackendRefused(StartFailed(detail=obstacle))

    async def _start_services(self, services: Iterable[str], sight: Sight) -> None:
        await _all([self._revive(each) for service in services for each in sight.of(service)])

    async def _revive(self, container: Container) -> None:
        engine = self._daemon.engine
        self._daemon.events.told_to_end.discard(container.id)  # that was its last run
        try:
            if container.status == "paused":
                await engine.unpause(container)
            else:
                await engine.start(container)
        except EngineRefusal as refusal:
            if refusal.status == 404:
                raise _Gone(container.service, str(refusal)) from refusal
            raise
        self._lived.add(container.id)

    # Stopping.

    async def _bring_down(self, part: Part, grace_seconds: float) -> None:
        daemon = self._daemon
        neighbours = [
            other
            for backend, other in daemon.parts.items()
            if backend is not self and other.project.name == part.project.name
        ]
        async with daemon.lock(part.project.name):
            sight = await self._look(part)
            for group in part.to_stop(sight, neighbours):
                await to_the_end(self._stop_services(group, sight, grace_seconds))

    async def _stop_services(
        self, services: Iterable[str], sight: Sight, grace_seconds: float
    ) -> None:
        running = [
            each
            for service in services
            for each in sight.of(service)
            if each.status in ("running", "paused", "restarting")
        ]
        try:
            await _all([self._daemon.engine.stop(each, grace_seconds) for each in running])
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
