"""Compose, as a program: the few commands of it that are needed, run in one folder.

Each takes about 0.1 s, more to create. What of a file counts, and what is done about it, is for
Compose to say: nothing here looks into a Compose file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from autostart_proxy.backends.cancellation import to_the_end
from autostart_proxy.backends.folders import folder_problems
from autostart_proxy.backends.tail import Tail
from autostart_proxy.errors import BackendRefused, Misconfigured, StartFailed

_log = logging.getLogger(__name__)

_CANDIDATES = (("docker", "compose"), ("docker-compose",))
_OLDEST_MAJOR = 2
_TERMINATE_SECONDS = 10.0
_CHUNK_BYTES = 65536

_OF_ONE_PROJECT = (
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_ENV_FILES",
    "DOCKER_CONTEXT",
)
"""Variables that, set for the proxy, would make all its services one project or one daemon."""

_VALUE = re.compile(
    r"(in variable name|unterminated quoted value|Invalid template:|You may need to escape any \$"
    r" with another \$\.)\s.*"
)
"""Where Compose repeats what stands in an env file or a variable: it may be a password."""

ALL_PROFILES = ("*",)


class ComposeFailed(Exception):
    """Compose ended with an error; the message is its last lines."""


class Compose:
    """Compose in one folder.

    Every call raises `ComposeFailed` in Compose's own words, and `BackendRefused` where Compose
    cannot be run at all. A cancelled call returns once Compose has ended.

    Args:
        folder: where to run it.
        profiles: those to activate; none: what COMPOSE_PROFILES says, in the environment or `.env`.
        docker_host: the engine, so that Compose never asks another one than we do.
        service: for its lines in the log.
    """

    def __init__(
        self, folder: Path, profiles: Sequence[str], docker_host: str, service: str
    ) -> None:
        self._folder = folder
        self._profiles = profiles
        self._docker_host = docker_host
        self._service = service
        self._command: tuple[str, ...] | None = None

    async def config(
        self, services: Iterable[str] = (), profiles: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The project as Compose has read it.

        Args:
            services: only these, and what they need; a service's name activates it. None: all that
                are active.
            profiles: instead of those that are configured.
        """
        found = await self._run(("config", "--format", "json", *services), profiles=profiles)
        return dict(json.loads(found))

    async def hashes(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Compose's fingerprints of the services of a configuration that it gave; none where it
        does not know them.

        Asked directly, `config --hash` leaves the content of env files out, unlike the
        fingerprints that containers bear.
        """
        services = config.get("services") or {}
        for service in services.values():  # what is not active is still named, and an error here
            needs = service.get("depends_on") or {}
            service["depends_on"] = {name: to for name, to in needs.items() if name in services}
        try:
            told = await self._run(
                ("--project-directory", str(self._folder), "-f", "-", "config", "--hash", "*"),
                profiles=ALL_PROFILES,
                input=json.dumps(config).encode(),
            )
        except ComposeFailed as failure:
            self._debug("no fingerprints", reason=str(failure))
            return {}
        pairs = (line.split() for line in told.decode().splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    async def interpolated(
        self, texts: Sequence[str], folder: Path, env_files: Iterable[Path]
    ) -> list[str] | None:
        """Texts with their variables replaced, as in a Compose file of a folder; None where
        Compose cannot.

        Args:
            env_files: later ones are stronger, and all are weaker than the environment.
        """
        labels = {f"n{at}": text for at, text in enumerate(texts)}
        question = {"name": "x", "services": {"x": {"image": "x", "labels": labels}}}
        options = [word for each in env_files for word in ("--env-file", str(each))]
        where = ("--project-directory", str(folder), "-f", "-")
        try:
            answer = await self._run(
                (*options, *where, "config", "--format", "json"),
                input=json.dumps(question).encode(),
            )
            labels = json.loads(answer)["services"]["x"]["labels"]
        except (ComposeFailed, ValueError, KeyError) as failure:
            self._debug("variables not replaced", reason=str(failure))
            return None
        return [str(labels[f"n{at}"]).replace("$$", "$") for at in range(len(texts))]

    async def create(self, services: Iterable[str], project: str, *, keep: bool = False) -> None:
        """Pull, build and create what is missing or has changed, and start nothing.

        Args:
            services: these and what they need; none: all.
            keep: whether what exists is left as it is even if it has changed.
        """
        kept = ("--no-recreate",) if keep else ()
        await self._run(("up", "--no-start", "--quiet-pull", *kept, *services), project=project)

    async def create_anew(self, service: str, project: str) -> None:
        """Replace one service's containers by new ones, whatever state they are in.

        For those that exist and still cannot be started, which Compose would leave as they are:
        after `docker network prune` they refer to a network that will never come back.
        """
        command = ("up", "--no-start", "--quiet-pull", "--force-recreate", "--no-deps", service)
        await self._run(command, project=project)

    async def start(self, service: str, project: str) -> None:
        """Start one service's containers, which exist, and what belongs to that: hooks, files."""
        only = ("--no-deps", "--no-recreate", "--no-build", "--pull", "never")
        await self._run(("up", "--detach", *only, service), project=project)

    async def stop(self, service: str, project: str, grace_seconds: float | None) -> None:
        """Stop one service's containers, and what belongs to that: hooks."""
        limit = () if grace_seconds is None else ("--timeout", str(math.ceil(grace_seconds)))
        await self._run(("stop", *limit, service), project=project)

    async def _run(
        self,
        arguments: Sequence[str],
        *,
        profiles: Sequence[str] | None = None,
        project: str = "",
        input: bytes = b"",
    ) -> bytes:
        command = await self._find()
        active = self._profiles if profiles is None else profiles
        options = [word for each in active for word in ("--profile", each)]
        # By the variable and not by -p, with which some commands do not read the Compose file.
        named = {"COMPOSE_PROJECT_NAME": project} if project else {}
        code, output, complaint = await self._execute(
            *command, "--ansi", "never", *options, *arguments, set=named, input=input
        )
        if code != 0:
            lines = _VALUE.sub(r"\1 …", "\n".join(complaint.lines))
            asked = " ".join(arguments)
            raise ComposeFailed(f"docker compose {asked} exited with {code}:\n{lines}")
        return output

    async def _find(self) -> tuple[str, ...]:
        if self._command is not None:
            return self._command
        for problem in folder_problems(self._folder):
            raise BackendRefused(Misconfigured(detail=f"composeDir cannot be used: {problem}"))
        seen = []
        for candidate in _CANDIDATES:
            try:
                code, output, _ = await self._execute(*candidate, "version", "--short")
            except OSError as cause:
                seen.append(str(cause))
                continue
            version = re.match(rb"v?(\d+)[.\d]*", output.strip())
            if code == 0 and version and int(version[1]) >= _OLDEST_MAJOR:
                self._command = candidate
                return candidate
            found = version[0].decode() if code == 0 and version else "no answer"
            seen.append(f"`{' '.join(candidate)} version`: {found}")
        detail = (
            "Docker Compose 2 or newer is needed; install docker-compose-plugin or"
            f" docker-compose-v2 (found: {'; '.join(seen)})"
        )
        raise BackendRefused(StartFailed(detail=detail))

    async def _execute(
        self, *argv: str, set: Mapping[str, str] | None = None, input: bytes = b""
    ) -> tuple[int, bytes, Tail]:
        """Run a program to its end: its status, its stdout, and the end of its stderr."""
        environment = {
            name: value for name, value in os.environ.items() if name not in _OF_ONE_PROJECT
        }
        own = {"DOCKER_HOST": self._docker_host, "PWD": str(self._folder)}
        # A call that is cancelled while the program is being started must not leave it running.
        process = await to_the_end(
            asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if input else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._folder,
                env=environment | own | dict(set or {}),
                start_new_session=True,
            ),
            undo=_end,
        )
        complaint = Tail()
        try:
            async with asyncio.TaskGroup() as pipes:
                output = pipes.create_task(_collect(process.stdout))
                pipes.create_task(self._follow(process.stderr, complaint))
                pipes.create_task(_feed(process.stdin, input))
            code = await process.wait()
        finally:
            if process.returncode is None:
                await to_the_end(_end(process))
        return code, output.result(), complaint

    async def _follow(self, stream: asyncio.StreamReader | None, tail: Tail) -> None:
        while stream is not None and (data := await stream.read(_CHUNK_BYTES)):
            for line in tail.feed(data):
                self._debug("compose", line=line)

    def _debug(self, message: str, **facts: str) -> None:
        _log.debug(message, extra={"service": self._service, **facts})


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is not None:
        with suppress(ConnectionError):  # it ended without reading all: its status says why
            stream.write(data)
            await stream.drain()
        stream.close()


async def _collect(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


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
