"""A start, from what is seen to what is wanted.

- Containers that exist and are what the Compose file says are started by the engine directly, in
  the order of `depends_on`: that is the fast way, and what a wake normally is. Compose is asked to
  create what is missing or has changed, and starts only what it alone can start (hooks).
- What runs is never replaced: that would cut requests of somebody who uses it.
- Somebody else may be stopping, removing and creating the same containers. While that is seen to
  go on, and for a moment after, nothing is started or created: it would get in their way. What
  the engine refuses in such a moment is tried again, for a while.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterable

from autostart_proxy.backends.cancellation import to_the_end, together
from autostart_proxy.backends.compose.cli import ComposeFailed
from autostart_proxy.backends.compose.folder import ComposeFolder
from autostart_proxy.backends.compose.neighbours import Neighbours
from autostart_proxy.backends.compose.port import Port
from autostart_proxy.backends.compose.project import Unit
from autostart_proxy.backends.compose.snapshot import Snapshot
from autostart_proxy.backends.compose.view import View
from autostart_proxy.backends.docker.api import DockerClient, DockerRefusal
from autostart_proxy.backends.docker.container import LABEL, Container, Listed, working_dir
from autostart_proxy.backends.docker.events import Changes, Events
from autostart_proxy.errors import (
    BackendRefused,
    ContainerExited,
    Misconfigured,
    StartFailed,
)

_log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.5
"""How often a start looks at what it waits for even if no event comes: the stream may be down."""

_QUIET_SECONDS = 1.0
"""How long after somebody else's last step the next may follow: between `docker compose down` and
`up` in one line lie some 0.3 s."""

_PATIENCE_SECONDS = 10.0
"""How long what may pass is waited for, from its last change."""

_TRY_AGAIN_SECONDS = 0.25

_PASSING = re.compile(
    r"marked for removal|removal of container|no such container|network \S+ not found"
    r"|network with name \S+ already exists|has active endpoints|container missing",
    re.IGNORECASE,
)
"""What Compose says when somebody else removes or creates the same at the same time."""

_NAME_TAKEN = re.compile(r"is already in use by container \"?(\w+)")
_PORT_TAKEN = re.compile(
    r"(?:bind for|listen tcp[46]?|host port(?: for)?) \S*?:(\d{1,5})(?=[:/\s]).*already",
    re.IGNORECASE | re.DOTALL,
)


class _Interference(Exception):
    """Something was not as it had just been seen to be, or will not be so for long."""


class _Unstartable(_Interference):
    """The engine says that a container, or the network it was made for, is not there."""

    def __init__(self, container: Container, refusal: DockerRefusal) -> None:
        self.container = container
        super().__init__(f"{container.service} cannot be started: {refusal}")


class Starter:
    """Starts what is not running of one service.

    Args:
        host: of the service, for its lines in the log.
    """

    def __init__(
        self,
        host: str,
        client: DockerClient,
        events: Events,
        folder: ComposeFolder,
        view: View,
        port: Port,
        neighbours: Neighbours,
    ) -> None:
        self._host = host
        self._client = client
        self._events = events
        self._folder = folder
        self._view = view
        self._port = port
        self._neighbours = neighbours

    async def start(self, unit: Unit, launched: Callable[[], None]) -> Snapshot:
        """Start a unit, and return what is there then; see `Backend.start`.

        Raises:
            DockerRefusal: the engine said no, and will again.
        """
        began, prepared, changed = _now(), False, False
        seen = await self._undisturbed(unit)
        while True:
            try:
                self._refuse_strangers(unit, seen)
                if not prepared or unit.missing(seen):
                    before, seen = seen, await self._prepare(unit, seen)
                    changed = changed or seen is not before
                if not prepared:
                    self._port.check_publication(self._candidates(unit, seen))
                    prepared = True
                    launched()
                seen = await self._bring_up(unit, seen, unit.for_compose(seen, changed=changed))
                break
            except _Interference as trouble:
                if _now() - max(began, self._meddled_at) > _PATIENCE_SECONDS:
                    raise BackendRefused(StartFailed(detail=str(trouble))) from trouble
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
                seen = await self._undisturbed(unit)
                if isinstance(trouble, _Unstartable):
                    seen = await self._replace(unit, trouble.container, seen)
        running = [each for each in self._candidates(unit, seen) if each.runs]
        self._port.check_publication(running)
        return seen

    # Others at work.

    @property
    def _meddled_at(self) -> float:
        return self._events.meddled_at(self._view.concerns)

    async def _undisturbed(self, unit: Unit) -> Snapshot:
        """See what there is, once nobody else is working on it; or nothing is left to do."""
        seen = await self._view.look(unit)
        if self._may_go_on(unit, seen):
            return seen
        changes, changed_at = Changes(), _now()
        with self._events.listen(self._view.concerns, changes):
            while True:
                before, seen = seen, await self._view.look(unit)
                if self._may_go_on(unit, seen):
                    return seen
                if seen != before or unit.is_ending(seen):
                    changed_at = _now()
                elif _now() - changed_at > _PATIENCE_SECONDS:
                    return seen
                await changes.wait(_LOOK_AGAIN_SECONDS)

    def _may_go_on(self, unit: Unit, seen: Snapshot) -> bool:
        if unit.is_busy(seen):
            return False
        return _now() - self._meddled_at > _QUIET_SECONDS or unit.all_up(seen)

    def _refuse_strangers(self, unit: Unit, seen: Snapshot) -> None:
        """Never let Compose replace what was made from another folder."""
        for other in unit.taken(seen):
            detail = (
                f"two folders make a project {seen.project}: {self._folder.path} and"
                f" {working_dir(other.labels)}, where {other.name} comes from; give one of them"
                " another name (`name:` in its Compose file)"
            )
            raise BackendRefused(Misconfigured(detail=detail))

    # What has to be there before anything is started.

    async def _prepare(self, unit: Unit, seen: Snapshot) -> Snapshot:
        """Have Compose create what is missing or no longer what file and image say.

        Returns:
            The same snapshot, if there is nothing to do.
        """
        to_start = unit.to_start(seen)
        if not to_start:
            return seen
        candidates = self._candidates(unit, seen)
        current, taken = await together(
            [self._are_current(unit, to_start, seen), self._port.is_taken(candidates)]
        )
        if taken:
            await self._free_port(unit, seen, self._port.number)
        if current and not unit.missing(seen):
            return seen
        return await self._create(unit, seen, to_start if current else ())

    async def _are_current(self, unit: Unit, services: Iterable[str], seen: Snapshot) -> bool:
        for service in services:
            for each in seen.of(service):
                image = await self._client.image_id(each.image)
                if not self._folder.is_current(unit.project.services[service], each, image):
                    return False
        return True

    async def _create(self, unit: Unit, seen: Snapshot, missing: Collection[str]) -> Snapshot:
        """Have Compose create.

        Args:
            missing: the services that are to be started, where that is all there is to do: then
                what has changed and runs is left alone.
        """
        self._events.own_work.update(each.id for each in seen.everything())
        try:
            known = await self._folder.create(seen.project, keep=bool(missing))
        except ComposeFailed as failure:
            raise await self._meaning(failure) from failure
        seen = await self._view.look(unit)
        for service in (missing or unit.services) if known else ():
            for each in seen.of(service):
                self._folder.leave(each, await self._client.image_id(each.image))
        return seen

    async def _replace(self, unit: Unit, container: Container, seen: Snapshot) -> Snapshot:
        """Have Compose make a container anew that is still there and can never be started."""
        if all(each.id != container.id for each in seen.of(container.service)):
            return seen
        self._events.own_work.add(container.id)
        try:
            await self._folder.create_anew(container.service, seen.project)
        except ComposeFailed as failure:
            raise BackendRefused(StartFailed(detail=str(failure))) from failure
        return await self._view.look(unit)

    async def _meaning(self, failure: ComposeFailed) -> Exception:
        """Whether what Compose says may pass."""
        words = str(failure)
        if taken := _NAME_TAKEN.search(words):
            holder = await self._client.container(taken[1])
            meddled = _now() - self._meddled_at < _PATIENCE_SECONDS
            passing = holder is None or holder.status == "removing" or meddled
        else:
            passing = _PASSING.search(words) is not None
        return _Interference(words) if passing else BackendRefused(StartFailed(detail=words))

    def _candidates(self, unit: Unit, seen: Snapshot) -> list[Container]:
        return unit.candidates(seen, self._port.host, self._port.number)

    async def _free_port(self, unit: Unit, seen: Snapshot, port: int) -> None:
        """Stop what has a port and is only left over: its service has another name by now.

        Raises:
            BackendRefused: it is somebody else.
        """
        holder = await self._port.publisher(port)
        if holder is not None and unit.borrows_from(holder):
            return
        if holder is None or not await self._is_left_over(holder, seen):
            raise BackendRefused(await self._port.in_use(self._candidates(unit, seen), port))
        container = await self._client.container(holder.id)
        if container is not None:
            facts = {"service": self._host, "part": holder.name}
            _log.info("stopped what its Compose file no longer names", extra=facts)
            self._events.own_work.add(container.id)
            await to_the_end(self._client.stop(container, None))

    async def _is_left_over(self, holder: Listed, seen: Snapshot) -> bool:
        same_project = holder.labels.get(LABEL + "project") == seen.project
        if not same_project or not self._folder.home.holds_file(holder.labels):
            return False
        try:
            return holder.labels.get(LABEL + "service") not in (await self._folder.whole()).services
        except ComposeFailed:
            return False

    # Starting.

    async def _bring_up(self, unit: Unit, seen: Snapshot, by_compose: Collection[str]) -> Snapshot:
        """Start what is down, each service once what it waits for has happened.

        Args:
            by_compose: the services that Compose has to start.
        """
        changes = Changes()
        lock = self._neighbours.lock(unit.project.name)
        crossed = lock.locked()
        async with lock:
            with self._events.listen(self._view.concerns, changes):
                if crossed:  # somebody else has just started or stopped something
                    seen = await self._view.look(unit)
                waiting = unit.to_start(seen)
                while True:
                    await self._check(unit, seen, waiting)
                    due = [each for each in waiting if unit.is_due(each, seen, waiting)]
                    if due:
                        await self._start_services(unit, due, seen, by_compose)
                        waiting = [each for each in waiting if each not in due]
                    elif waiting:
                        await changes.wait(_LOOK_AGAIN_SECONDS)
                    else:
                        return seen
                    seen = await self._view.look(unit)

    async def _check(self, unit: Unit, seen: Snapshot, waiting: Collection[str]) -> None:
        """Give up at once where a start cannot succeed any more."""
        for service in unit.missing(seen):
            raise _Interference(f"{service} cannot be started: it has no container")
        begun = [each for each in unit.services if each not in waiting]
        for container in unit.failed(seen, begun):
            if container.id in seen.told_to_end:
                raise _Interference(f"{container.service} was stopped by somebody else")
            raise BackendRefused(ContainerExited(detail=str(await self._view.exit(container))))
        for service in waiting:
            if blocker := unit.blocker(service, seen):
                raise BackendRefused(StartFailed(detail=blocker))

    async def _start_services(
        self, unit: Unit, services: Iterable[str], seen: Snapshot, by_compose: Collection[str]
    ) -> None:
        calls = []
        for service in services:
            containers = seen.of(service)
            if service in by_compose and not any(each.runs for each in containers):
                calls.append(self._start_by_compose(service, containers, seen.project))
            else:
                calls.extend(to_the_end(self._revive(unit, each, seen)) for each in containers)
        await together(calls)

    async def _start_by_compose(
        self, service: str, containers: Iterable[Container], project: str
    ) -> None:
        try:
            await self._folder.start(service, project)
        except ComposeFailed as failure:
            raise await self._meaning(failure) from failure
        self._view.note_started(containers)

    async def _revive(self, unit: Unit, container: Container, seen: Snapshot) -> None:
        client = self._client
        try:
            if container.status == "paused":
                await client.unpause(container)
            if container.runs and not seen.is_connected(container):
                self._events.own_work.add(container.id)
                await client.stop(container, None)
            if container.status != "paused":
                await client.start(container)
        except DockerRefusal as refusal:
            raise await self._meaning_of_refusal(refusal, container, unit, seen) from refusal
        self._view.note_started([container])

    async def _meaning_of_refusal(
        self, refusal: DockerRefusal, container: Container, unit: Unit, seen: Snapshot
    ) -> Exception:
        """Whether what the engine says may pass."""
        if refusal.status == 404:
            return _Unstartable(container, refusal)
        if refusal.status == 409:
            return _Interference(str(refusal))
        if taken := _PORT_TAKEN.search(refusal.message):
            port = int(taken[1])
            holder = await self._port.publisher(port)
            mine = {each.id for name in unit.services for each in seen.of(name)}
            if holder is None and not await self._port.answers(port):
                return _Interference(str(refusal))
            if holder is None or holder.id not in mine:
                await self._free_port(unit, seen, port)
            return _Interference(str(refusal))
        return refusal


def _now() -> float:
    return asyncio.get_running_loop().time()
