"""What only Compose itself knows or can do: read a Compose file, create containers from it.

One folder's view of `docker compose`. It is slow (about 0.1 s a call, more to create), so what
it says is remembered until a Compose or environment file of the folder changes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from autostart_proxy.backends.cancellation import to_the_end
from autostart_proxy.backends.compose.project import ComposeService, Project, Unit
from autostart_proxy.backends.docker.container import Container
from autostart_proxy.backends.tail import Tail
from autostart_proxy.errors import BackendRefused, StartFailed

_log = logging.getLogger(__name__)

_CANDIDATES = (("docker", "compose"), ("docker-compose",))
_OLDEST_MAJOR = 2
_TERMINATE_SECONDS = 10.0
_CHUNK_BYTES = 65536

_OF_ONE_PROJECT = (
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
    "DOCKER_CONTEXT",
)
"""Variables that, set for the proxy, would make all its services one project or one daemon."""


class ComposeFolder:
    """A folder with a Compose file, and the part of its project that is wanted.

    Args:
        folder: where to run Compose.
        names: the services or containers that must run; None for what `docker compose up` starts.
        docker_host: the engine, so that Compose never asks another one than we do.
    """

    def __init__(self, folder: Path, names: Collection[str] | None, docker_host: str) -> None:
        self._folder = folder
        self._names = names
        self._docker_host = docker_host
        self._command: tuple[str, ...] | None = None
        self._reading = asyncio.Lock()
        self._read: tuple[object, Unit] | None = None
        self._extra_files: set[Path] = set()
        self._equivalent: set[tuple[object, object]] = set()

    @property
    def known(self) -> Unit | None:
        """What the Compose file said when it was last read; None before."""
        return self._read and self._read[1]

    async def unit(self) -> Unit:
        """What the Compose file says now.

        Raises:
            BackendRefused: the file is missing or wrong, there is no Compose v2, or no service
                carries a wanted name.
        """
        async with self._reading:
            fingerprint = self._fingerprint()
            if self._read is None or self._read[0] != fingerprint:
                self._read = fingerprint, await self._load()
            return self._read[1]

    async def create(self, services: Iterable[str]) -> None:
        """Pull, build and create what is missing or has changed, and start nothing.

        Raises:
            BackendRefused: it did not work; with Compose's last lines.
        Cancellation: returns once Compose has ended.
        """
        await self._compose("up", "--no-start", "--quiet-pull", *services)

    async def create_anew(self, service: str) -> None:
        """Replace one service's containers by new ones, whatever state they are in.

        For those that exist and still cannot be started, which Compose would leave as they are:
        after `docker network prune` they refer to a network that will never come back. Raises and
        ends as `create`.
        """
        await self._compose(
            "up", "--no-start", "--quiet-pull", "--force-recreate", "--no-deps", service
        )

    def is_current(self, service: ComposeService, container: Container, image: str | None) -> bool:
        """Whether Compose would leave a container as it is.

        Args:
            image: what the name of the container's image means now; None if unknown.
        """
        wanted, found = _fingerprints(service, container, image)
        return wanted == found or (wanted, found) in self._equivalent

    def accept(self, service: ComposeService, container: Container, image: str | None) -> None:
        """Take a container that Compose has just left as it is for current.

        Releases of Compose differ in what they count in a fingerprint; without this a service
        whose two fingerprints never agree would take the slow way at every start.
        """
        self._extra_files.update(container.config_files)
        self._equivalent.add(_fingerprints(service, container, image))

    def _fingerprint(self) -> object:
        """Changes whenever a file changes that Compose may have read."""
        paths = {
            entry.path
            for entry in _entries(self._folder)
            if entry.name.endswith((".yml", ".yaml", ".env")) or entry.name.startswith(".env")
        }
        return frozenset(_stamp(path) for path in paths.union(map(str, self._extra_files)))

    async def _load(self) -> Unit:
        project = await self._load_project()
        try:
            unit = project.unit(self._names)
        except KeyError:  # it may stand in a profile, which naming it activates
            project = await self._load_project("--profile", "*")
            try:
                unit = project.unit(self._names)
            except KeyError as name:
                raise _refusal(
                    f"no service or container {name} in {self._folder};"
                    f" there are: {', '.join(project.services)}"
                ) from None
        if not unit.services:
            raise _refusal(f"the Compose file in {self._folder} starts no service")
        return unit

    async def _load_project(self, *profile: str) -> Project:
        await self._find_compose()
        config, hashes = await asyncio.gather(
            self._compose(*profile, "config", "--format", "json"),
            self._compose(*profile, "config", "--hash", "*"),
        )
        pairs = (line.split() for line in hashes.decode().splitlines())
        return Project.from_config(
            json.loads(config), {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        )

    async def _compose(self, *arguments: str) -> bytes:
        command = await self._find_compose()
        code, output, complaint = await self._run(*command, "--ansi", "never", *arguments)
        if code != 0:
            lines = "\n".join(complaint.lines)
            raise _refusal(f"docker compose {' '.join(arguments)} exited with {code}:\n{lines}")
        return output

    async def _find_compose(self) -> tuple[str, ...]:
        if self._command is not None:
            return self._command
        if not self._folder.is_dir():
            raise _refusal(f"composeDir is not a folder: {self._folder}")
        seen = []
        for candidate in _CANDIDATES:
            try:
                code, output, _ = await self._run(*candidate, "version", "--short")
            except OSError as cause:
                seen.append(str(cause))
                continue
            version = re.match(rb"v?(\d+)[.\d]*", output.strip())
            if code == 0 and version and int(version[1]) >= _OLDEST_MAJOR:
                self._command = candidate
                return candidate
            found = version[0].decode() if code == 0 and version else "no answer"
            seen.append(f"`{' '.join(candidate)} version`: {found}")
        raise _refusal(
            "Docker Compose 2 or newer is needed; install docker-compose-plugin or"
            f" docker-compose-v2 (found: {'; '.join(seen)})"
        )

    async def _run(self, *argv: str) -> tuple[int, bytes, Tail]:
        """Run a program to its end: its status, its stdout, and the end of its stderr."""
        environment = {
            name: value for name, value in os.environ.items() if name not in _OF_ONE_PROJECT
        } | {"DOCKER_HOST": self._docker_host, "PWD": str(self._folder)}
        # A call that is cancelled while the program is being started must not leave it running.
        process = await to_the_end(
            asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
            ),
            undo=_end,
        )
        complaint = Tail()
        try:
            async with asyncio.TaskGroup() as readers:
                output = readers.create_task(_collect(process.stdout))
                readers.create_task(_follow(process.stderr, complaint))
            code = await process.wait()
        finally:
            if process.returncode is None:
                await to_the_end(_end(process))
        return code, output.result(), complaint


def _fingerprints(
    service: ComposeService, container: Container, image: str | None
) -> tuple[object, object]:
    """What a container should be, and what it is; what is unknown is as it should be."""
    wanted = (
        service.name,
        service.config_hash or container.config_hash,
        image if image and container.image_id else container.image_id,
    )
    return wanted, (service.name, container.config_hash, container.image_id)


def _refusal(detail: str) -> BackendRefused:
    return BackendRefused(StartFailed(detail=detail))


async def _collect(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


async def _follow(stream: asyncio.StreamReader | None, tail: Tail) -> None:
    while stream is not None and (data := await stream.read(_CHUNK_BYTES)):
        for line in tail.feed(data):
            _log.debug("compose", extra={"line": line})


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have Compose end by itself, which takes back what it asked of the engine."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_TERMINATE_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _stamp(path: str) -> tuple[object, ...]:
    try:
        seen = os.stat(path)
    except OSError:
        return (path,)
    return path, seen.st_mtime_ns, seen.st_size, seen.st_ino
