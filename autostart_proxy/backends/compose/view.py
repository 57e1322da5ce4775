"""What the engine shows of one service's containers.

Only containers that were made from the service's folder are looked at; those of another folder
that has the same name are counted as strangers and left alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from autostart_proxy.backends import Exit
from autostart_proxy.backends.cancellation import together
from autostart_proxy.backends.compose.folder import ComposeFolder
from autostart_proxy.backends.compose.ownership import effective_project
from autostart_proxy.backends.compose.project import Unit
from autostart_proxy.backends.compose.snapshot import Snapshot
from autostart_proxy.backends.docker.api import DockerClient, DockerRefusal, own_grace_seconds
from autostart_proxy.backends.docker.container import LABEL, Container, Listed, working_dir
from autostart_proxy.backends.docker.events import Events

_ENDING_MARGIN_SECONDS = 2.0
"""How much longer than its grace period a container that was told to end may take to."""


class View:
    """One service's containers.

    Args:
        port: host and port where the service is to listen.

    Attributes:
        lived: ids of containers that were seen running since this was last cleared.
    """

    def __init__(
        self, client: DockerClient, events: Events, folder: ComposeFolder, port: tuple[str, int]
    ) -> None:
        self._client = client
        self._events = events
        self._folder = folder
        self._port = port
        self.lived: set[str] = set()

    def concerns(self, labels: Mapping[str, str]) -> bool:
        """Whether an event of a container may be of interest."""
        if labels.get(LABEL + "oneoff") == "True":  # a `docker compose run`
            return False
        known = self._folder.known
        named = known is not None and labels.get(LABEL + "project") == known.project.name
        return named or self._folder.home.holds(labels)

    async def look(self, unit: Unit) -> Snapshot:
        """See what there is of a unit's project."""
        own = unit.project.name
        listed = [
            each
            for each in await self._client.compose_containers()
            if each.labels.get(LABEL + "project") == own or self._folder.home.holds(each.labels)
        ]
        strangers = [each for each in listed if self._is_strange(each)]
        found = await self._inspect([each for each in listed if each not in strangers])
        project = effective_project(
            own,
            found,
            needed=unit.required,
            port=self._port,
            may_keep=self._folder.has_usual_name,
        )
        mine = [each for each in found if each.project == project]
        self.note_started(each for each in mine if each.runs)
        ids = {each.id for each in mine} | {each.name for each in mine}
        borrowed = {each.lender for each in mine if each.lender} - ids
        return Snapshot.of_all(
            mine,
            told_to_end=[each.id for each in mine if self._was_told(each)],
            ending=[each.id for each in mine if self._is_ending(each)],
            lenders=await self._lenders(borrowed),
            project=project,
            strangers=strangers if project == own else (),
        )

    def note_started(self, containers: Iterable[Container]) -> None:
        """Remember that these have lived: how they end is worth telling."""
        self.lived.update(each.id for each in containers)

    async def exit(self, container: Container) -> Exit:
        """How a container ended, with its last words."""
        return Exit(
            part=container.service,
            code=container.exit_code,
            out_of_memory=container.out_of_memory,
            log_tail=await self._client.log_tail(container),
        )

    async def made_from_folder(self) -> list[Container]:
        """All containers that were made from the folder, whatever its files say."""
        listed = await self._client.compose_containers()
        return await self._inspect(
            [each for each in listed if self._folder.home.holds(each.labels)]
        )

    async def _inspect(self, listed: list[Listed]) -> list[Container]:
        found = await together(self._client.container(each.id) for each in listed)
        return [each for each in found if each is not None]  # some were removed meanwhile

    async def _lenders(self, names: Iterable[str]) -> dict[str, Container | None]:
        """Strangers whose network is used; without those that the engine does not show."""
        lenders = {}
        for name in names:
            with suppress(DockerRefusal):
                lenders[name] = await self._client.container(name)
        return lenders

    def _is_strange(self, found: Listed) -> bool:
        """Whether a container comes from another folder.

        One from a folder that is not here is no proof of that: the folder may have been moved, or
        Compose may have been run in a container, where it has another path.
        """
        if self._folder.home.holds(found.labels):
            return False
        folder = working_dir(found.labels)
        if not folder or os.path.realpath(folder) in self._folder.home.folders:
            return False
        try:
            os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def _was_told(self, container: Container) -> bool:
        signal = self._events.signals.get(container.id)
        return signal is not None and container.is_ended_by(signal.number)

    def _is_ending(self, container: Container) -> bool:
        if not container.runs or not self._was_told(container):
            return False
        since = asyncio.get_running_loop().time() - self._events.signals[container.id].sent_at
        return since < own_grace_seconds(container) + _ENDING_MARGIN_SECONDS
