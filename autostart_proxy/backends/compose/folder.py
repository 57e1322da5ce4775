"""What a folder's Compose files say, read again only when one of them changes.

- Compose reads them; what is remembered is what it said, and what the files were like before.
- A container is *current* if Compose would leave it as it is. That is known where Compose left it
  so and no file has changed since, or, of what was made before this process began, where its
  fingerprint is the one of the files and none of them has changed since it was made. Whatever else
  is said to be current is a guess, and is not made: then Compose is asked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from autostart_proxy.backends.compose.cli import ALL_PROFILES, Compose, ComposeFailed
from autostart_proxy.backends.compose.fingerprint import Fingerprint, fingerprint
from autostart_proxy.backends.compose.ownership import Home, usual_name
from autostart_proxy.backends.compose.project import ComposeService, Project, Unit
from autostart_proxy.backends.docker.container import Container
from autostart_proxy.config.units import ComposeUnit
from autostart_proxy.errors import BackendRefused, Misconfigured


class ComposeFolder:
    """A folder with Compose files, and the part of its project that is wanted.

    Args:
        host: of the service, for its lines in the log.
        wanted: the folder, the services or containers that must run, and the active profiles.
        docker_host: the engine.

    Attributes:
        home: where this project's containers come from.
    """

    def __init__(self, host: str, wanted: ComposeUnit, docker_host: str) -> None:
        self._wanted = wanted
        self._compose = Compose(wanted.folder, wanted.profiles, docker_host, host)
        self._reading = asyncio.Lock()
        self._files = Fingerprint()
        self._base = wanted.folder
        self.home = _home((wanted.folder,))
        self._unit: Unit | None = None
        self._named: Collection[str] = ()
        self._left_as_is: dict[str, str | None] = {}
        """By id of a container, what its image's name meant when Compose left it as it is."""

    @property
    def known(self) -> Unit | None:
        """What the files said when they were last read; None before."""
        return self._unit

    @property
    def path(self) -> Path:
        """The project's folder: that of its first Compose file."""
        return self._base

    @property
    def has_usual_name(self) -> bool:
        """Whether nobody has chosen the project's name."""
        return self._unit is not None and self._unit.project.name == usual_name(self._base.name)

    async def unit(self) -> Unit:
        """What the files say now.

        Raises:
            BackendRefused: a file is missing or wrong, there is no Compose v2, or no service
                carries a wanted name.
        """
        async with self._reading:
            if self._unit is None or not self._files.still_holds():
                files = await fingerprint(self._wanted.folder, self._compose.interpolated)
                self._base = files.roots[0].parent if files.roots else self._wanted.folder
                self.home = _home((self._wanted.folder, self._base), files.roots)
                self._unit = await self._read()
                self._files = files
                self._left_as_is.clear()
            return self._unit

    async def create(self, project: str, *, keep: bool = False) -> bool:
        """Have Compose pull, build and create what is missing or has changed, and start nothing.

        Args:
            project: under which name.
            keep: whether what exists is left as it is even if it has changed.
        Returns:
            Whether the files were what they are known to be: what Compose has made, or looked at
            and left, is current.
        Raises:
            ComposeFailed: it did not work; with its last lines.
        Cancellation: returns once Compose has ended.
        """
        known = self._files.still_holds()
        await self._compose.create(self._named, project, keep=keep)
        return known

    async def create_anew(self, service: str, project: str) -> None:
        """Have Compose replace one service's containers; raises and ends as `create`."""
        await self._compose.create_anew(service, project)

    async def start(self, service: str, project: str) -> None:
        """Have Compose start one service's containers; raises and ends as `create`."""
        await self._compose.start(service, project)

    async def stop(self, service: str, project: str, grace_seconds: float | None) -> None:
        """Have Compose stop one service's containers; raises and ends as `create`."""
        await self._compose.stop(service, project, grace_seconds)

    async def whole(self) -> Project:
        """All services in the files, active or not.

        Raises:
            ComposeFailed: they cannot be read.
        """
        return Project.from_config(await self._compose.config(profiles=ALL_PROFILES), {})

    def leave(self, container: Container, image: str | None) -> None:
        """Note that Compose has just left a container as it is, or has made it so.

        Args:
            image: what the name of its image means now; None if unknown.
        """
        self._left_as_is[container.id] = image

    def is_current(self, service: ComposeService, container: Container, image: str | None) -> bool:
        """Whether Compose would leave a container as it is; False if that is not known.

        Args:
            image: what the name of its image means now; None if unknown.
        """
        if not self._files.complete:
            return False
        if container.id in self._left_as_is:
            before = self._left_as_is[container.id]
            return None in (before, image) or before == image
        return (
            container.config_hash == service.config_hash
            and container.created_at > self._files.changed_at
            and (None in (image, container.image_id or None) or image == container.image_id)
        )

    async def _read(self) -> Unit:
        names = self._wanted.containers
        try:
            if names is None:
                named: list[str] = []
                config = await self._compose.config()
            else:
                named, config = await self._select(names)
            hashes = await self._compose.hashes(config)
        except ComposeFailed as failure:
            raise BackendRefused(Misconfigured(detail=str(failure))) from failure
        unit = Project.from_config(config, hashes).unit(None if names is None else named)
        if not unit.services:
            nothing = f"the Compose file in {self._wanted.folder} starts no service"
            raise BackendRefused(Misconfigured(detail=nothing))
        self._named = named
        return unit

    async def _select(self, names: Collection[str]) -> tuple[list[str], dict[str, object]]:
        """Have Compose choose these services and what they need; they may be named by their
        containers, which only the whole file tells."""
        try:
            return list(names), await self._compose.config(names)
        except ComposeFailed:
            whole = await self.whole()
            try:
                services = [whole.find(name) for name in names]
            except KeyError as name:
                detail = (
                    f"no service or container {name} in {self._wanted.folder};"
                    f" there are: {', '.join(whole.services)}"
                )
                raise BackendRefused(Misconfigured(detail=detail)) from None
            if services == list(names):  # it is something else
                raise
            return services, await self._compose.config(services)


def _home(folders: Iterable[Path], files: Iterable[Path] = ()) -> Home:
    return Home(_names(folders), _names(files))


def _names(paths: Iterable[Path]) -> frozenset[str]:
    """Each path as it is written, and what its links lead to."""
    return frozenset(name for each in paths for name in (str(each), os.path.realpath(each)))
