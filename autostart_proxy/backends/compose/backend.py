"""A Compose project, or a part of it, as a service.

- What is found at the engine is the truth. An observation that was made while the service was
  being started or stopped is thrown away and made again, so that none is ever out of date.
- Only containers that were made from the service's folder are looked at or touched (`ownership`).
- How a start goes is told in `starting`; a stop leaves running what somebody else needs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack

from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.backends.cancellation import to_the_end, together
from autostart_proxy.backends.compose.cli import ComposeFailed
from autostart_proxy.backends.compose.fingerprint import compose_file, names_compose_file
from autostart_proxy.backends.compose.folder import ComposeFolder
from autostart_proxy.backends.compose.neighbours import Neighbours
from autostart_proxy.backends.compose.port import Port
from autostart_proxy.backends.compose.project import Project, Unit
from autostart_proxy.backends.compose.snapshot import Snapshot
from autostart_proxy.backends.compose.starting import Starter
from autostart_proxy.backends.compose.view import View
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
    DockerUnavailable,
    StartFailed,
    StopFailed,
)

_log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 4.0

_UNREADABLE_SECONDS = 30.0
"""How often a Compose file is read again that made no sense and has no containers."""

_KILLED = 137
"""The exit code of what SIGKILL ended."""


def open_backends() -> Callable[[str, ServiceConfig], ComposeBackend]:
    """Return what makes the backends of a fleet; all of them share one client of the engine."""
    client = DockerClient(docker_host())
    events, neighbours = Events(client), Neighbours()

    def make(host: str, config: ServiceConfig) -> ComposeBackend:
        if not isinstance(config.unit, ComposeUnit):
            raise TypeError("a Compose project needs a folder")
        return ComposeBackend(host, config.unit, client, events, neighbours)

    return make


def missing(unit: ComposeUnit) -> Iterator[tuple[str, str]]:
    """Yield the keys that name something that is not there, and why not."""
    folder = unit.folder
    yield from (("composeDir", reason) for reason in folder_problems(folder))
    named = names_compose_file(folder / ".env")
    if folder.is_dir() and not named and compose_file(folder) is None:
        yield "composeDir", f"{folder} holds no Compose file; put a compose.yaml there"


class ComposeBackend:
    """Starts, stops and watches the containers of one service.

    Args:
        host: of the service, for its lines in the log.
        wanted: the folder, the containers, and where they publish the service.
        client, events, neighbours: shared by all of the fleet that are made of Compose projects.
    """

    def __init__(
        self,
        host: str,
        wanted: ComposeUnit,
        client: DockerClient,
        events: Events,
        neighbours: Neighbours,
    ) -> None:
        self._host = host
        self._wanted = wanted
        self._client = client
        self._events = events
        self._neighbours = neighbours
        self._folder = ComposeFolder(host, wanted, client.address)
        self._where = wanted.host, wanted.port
        self._view = View(client, events, self._folder, self._where)
        self._port = Port(*self._where, client)
        self._starter = Starter(
            host, client, events, self._folder, self._view, self._port, neighbours
        )
        self._watches: set[Changes] = set()
        self._closed = False
        self._shown = False
        self._misconfigured = ""
        self._epoch = 0
        """Counts beginnings and ends of starts and stops."""

    async def start(self, launched: Callable[[], None]) -> Upstream:
        """Start what is not running; see `Backend.start`."""
        self._turn()
        try:
            unit = await self._read_compose_file()
            seen = await self._starter.start(unit, launched)
        except DockerRefusal as refusal:
            raise BackendRefused(StartFailed(detail=str(refusal))) from refusal
        finally:
            self._turn(forget=False)
        self._shown = self._port.is_published(unit.candidates(seen, *self._where))
        published = unit.published(seen, *self._where)
        return Upstream(
            *self._where,
            has_healthcheck=published is not None and published.health is not None,
        )

    async def verify(self) -> None:
        """Prove that it is a container of this service that listens; see `Backend.verify`.

        Nothing has to be asked where the start has just shown that one publishes the port.
        """
        shown, self._shown = self._shown, False
        try:
            if not shown and (unit := await self._known_unit()) is not None:
                seen = await self._view.look(unit)
                await self._port.check_listener(unit.candidates(seen, *self._where))
        except DockerRefusal as refusal:
            raise BackendUnreachable(str(refusal)) from refusal

    async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
        """Stop what nobody else needs; see `Backend.stop` and `Unit.to_stop`."""
        self._turn()
        try:
            unit = await self._known_unit()
            return () if unit is None else await self._bring_down(unit, grace_seconds)
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
        listens = False
        retry_seconds = _FIRST_RETRY_SECONDS
        self._watches.add(changes)
        try:
            with ExitStack() as listening:
                while not self._closed:
                    try:
                        unit = await self._known_unit()
                        if unit is not None and not listens:
                            listens = True
                            # Before the look, lest something happen in between.
                            listening.enter_context(
                                self._events.listen(self._view.concerns, changes)
                            )
                        seen = await self.observe()
                    except BackendUnreachable as cause:
                        _log.debug(
                            "cannot look", extra={"service": self._host, "reason": str(cause)}
                        )
                        await changes.wait(retry_seconds)
                        retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)
                        continue
                    retry_seconds = _FIRST_RETRY_SECONDS
                    yield seen
                    await changes.wait(None if listens else _UNREADABLE_SECONDS)
        finally:
            self._watches.discard(changes)

    async def log_tail(self) -> tuple[str, ...]:
        """The last lines of the containers that must run; see `Backend.log_tail`."""
        try:
            unit = await self._known_unit()
            if unit is None:
                return ()
            seen = await self._view.look(unit)
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
            self._view.lived.clear()
        for changes in self._watches:
            changes.note()

    # What there is.

    async def _read_compose_file(self) -> Unit:
        """What the Compose file says now; asks the engine first, since Compose is slow to."""
        if self._folder.known is None:
            await self._client.ping()
        try:
            unit = await self._folder.unit()
        except BackendRefused as refusal:
            self._misconfigured = refusal.reason.detail
            raise
        self._misconfigured = ""
        self._neighbours.note(self, unit)
        return unit

    async def _known_unit(self) -> Unit | None:
        """What is known without reading a Compose file that was read before.

        Where the file cannot be read, the labels of the containers made from it must do; None
        where there is not even one, or more than one project was made from the folder.
        """
        if self._folder.known is not None:
            return self._folder.known
        told = self._misconfigured
        try:
            return await self._read_compose_file()
        except BackendRefused as refusal:
            if self._misconfigured != told and not any(missing(self._wanted)):  # that is told
                facts = {"service": self._host, "reason": str(refusal)}
                _log.warning("Compose file not understood", extra=facts)
        containers = await self._view.made_from_folder()
        projects = {each.project for each in containers}
        if len(projects) != 1:
            return None
        try:
            return Project.from_containers(projects.pop(), containers).unit(self._wanted.containers)
        except KeyError:
            return None

    async def _observe(self) -> Observation:
        unit = await self._known_unit()
        if unit is None:
            return Observation(running=False, misconfigured=self._misconfigured)
        seen = await self._view.look(unit)
        published = unit.published(seen, *self._where)
        health = None if published is None or published.health is None else published.health
        runs = published is not None and published.status == "running"
        ended = [
            each
            for each in unit.failed(seen, unit.services)
            if each.id in self._view.lived and each.id not in seen.told_to_end
        ]
        running = unit.all_up(seen)
        return Observation(
            running=running,
            healthy=None if health is None else runs and health == "healthy",
            exit=await self._view.exit(ended[0]) if ended else None,
            failing=runs and health == "unhealthy",
            remains=not running and unit.runs(seen),
            misconfigured="" if self._folder.known is not None else self._misconfigured,
        )

    # Stopping.

    async def _bring_down(self, unit: Unit, grace_seconds: float | None) -> tuple[Exit, ...]:
        project = unit.project.name
        killed: list[Exit] = []
        async with self._neighbours.lock(project):
            seen = await self._view.look(unit)
            for group in unit.to_stop(seen, self._neighbours.beside(self, project)):
                killed += await self._stop_services(unit, group, seen, grace_seconds)
        return tuple(killed)

    async def _stop_services(
        self, unit: Unit, services: Iterable[str], seen: Snapshot, grace_seconds: float | None
    ) -> list[Exit]:
        running = {
            service: [each for each in seen.of(service) if each.runs] for service in services
        }
        containers = [each for found in running.values() for each in found]
        self._events.own_work.update(each.id for each in containers)
        try:
            await together(
                self._stop_by_compose(service, found, seen.project, grace_seconds)
                if found and unit.project.services[service].has_stop_hooks
                else to_the_end(self._stop_containers(found, grace_seconds))
                for service, found in running.items()
            )
            ended = await together(self._client.container(each.id) for each in containers)
        except BackendUnreachable as silence:  # it may still do what it was told
            raise BackendRefused(DockerUnavailable(detail=str(silence))) from silence
        return [
            Exit(each.service, each.exit_code)
            for each in ended
            if each is not None and each.exit_code == _KILLED and not each.out_of_memory
        ]

    async def _stop_by_compose(
        self, service: str, containers: list[Container], project: str, grace_seconds: float | None
    ) -> None:
        """Where it cannot, as where the file has become unreadable, better without its hooks."""
        try:
            await self._folder.stop(service, project, grace_seconds)
        except (ComposeFailed, BackendRefused) as failure:
            facts = {"service": self._host, "reason": str(failure)}
            _log.warning("stopped without its hooks", extra=facts)
            await to_the_end(self._stop_containers(containers, grace_seconds))

    async def _stop_containers(
        self, containers: list[Container], grace_seconds: float | None
    ) -> None:
        await together(self._client.stop(each, grace_seconds) for each in containers)
