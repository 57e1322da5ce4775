"""A plain command as a service: a program in a virtualenv needs no container.

- The command runs in a session of its own and carries a mark in its environment, so that a stop
  reaches all it started, also what has left its group.
- A start script may put the server into the background and end with 0: the service runs as long as
  something of it does.
- Nothing could adopt it after the proxy is gone: `close` stops it, and where util-linux'
  `setpriv` is installed the kernel kills it should the proxy itself be killed. What is left then
  is ended by the next proxy.
- Its output goes to the log, line by line.
- Of the proxy's environment it gets what any program needs to find its way, and no secret.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from autostart_proxy.backends import (
    OWN_GRACE_SECONDS,
    Backend,
    Exit,
    Observation,
    Upstream,
    processes,
)
from autostart_proxy.backends.cancellation import to_the_end
from autostart_proxy.backends.folders import folder_problems
from autostart_proxy.backends.listeners import listeners, taken
from autostart_proxy.backends.processes import Mark, Seen, Survived
from autostart_proxy.backends.runner import client
from autostart_proxy.backends.runner.messages import Made
from autostart_proxy.backends.tail import Tail
from autostart_proxy.backends.watchers import Watchers
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.units import CommandUnit
from autostart_proxy.errors import BackendRefused, Misconfigured, PortInUse, StartFailed, StopFailed

_log = logging.getLogger(__name__)

_OUTPUT_AFTER_EXIT_SECONDS = 0.25
"""How long to wait for a dead program's last output: its children may hold the pipe open."""

_HANDED_ON = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"}
)
"""What a command gets of the proxy's environment, beside the locale (`LC_*`): where things are and
in which language. Anything else may be a secret or a way to one (`DOCKER_HOST`)."""

_PUBLISHERS = frozenset({"docker-proxy", "rootlesskit", "rootlessport", "conmon", "slirp4netns"})
"""Who listens for a container: of a command like `docker run` no descendant, and yet its own."""


def open_backends() -> Callable[[str, ServiceConfig], Backend]:
    """Return what makes the backends of a fleet; processes share nothing."""
    runner = client.runner_socket()

    def make(host: str, config: ServiceConfig) -> Backend:
        unit = config.unit
        if not isinstance(unit, CommandUnit):
            raise TypeError("a process needs a command")
        grace = OWN_GRACE_SECONDS if config.stop_timeout is None else config.stop_timeout
        if runner is not None:
            return client.RunnerBackend(runner, Made(host, unit, grace))
        _log.warning(
            "this command may do all that the proxy may, with Docker too; to have a user without "
            "rights run it, enable docker-autostart-commands.socket and set %s to its path",
            client.VARIABLE,
            extra={"service": host},
        )
        return ProcessBackend(unit, host, grace)

    return make


def missing(unit: CommandUnit) -> Iterator[tuple[str, str]]:
    """Yield the keys that name something that is not there, and why not."""
    if (runner := client.runner_socket()) is not None:
        yield from client.missing(runner, unit)
        return
    if unit.cwd:
        yield from (("cwd", reason) for reason in folder_problems(unit.cwd))
    program = unit.command[0]
    if os.path.isabs(program) and not os.access(program, os.X_OK):
        reason = f"{program} is no program that can be run here; check its path and mode"
        yield "command", reason


class ProcessBackend:
    """Starts, stops and watches one command.

    Args:
        unit: the command, and where the program will listen.
        host: of the service, for its lines in the log.
        grace_seconds: for what is ended without a `stop`: children that outlived their parent, and
            the program when the backend is closed.
    """

    def __init__(self, unit: CommandUnit, host: str, grace_seconds: float) -> None:
        self._unit = unit
        self._host = host
        self._grace_seconds = grace_seconds
        self._mark = Mark.new(unit.host, unit.port)
        self._program: _Program | None = None
        self._watchers = Watchers()
        self._orphans_told: set[tuple[int, int]] = set()

    async def start(self, launched: Callable[[], None]) -> Upstream:
        """Start the command unless it runs; see `Backend.start`.

        Its preparation is that nobody else listens where it will: what is left of an earlier run
        is ended, and one that a reload replaces is waited for until its last request is over.

        Raises:
            BackendRefused: somebody else does (`PortInUse`), or the command cannot be run.
        """
        if self._program is None or not self._program.running:
            await self.stop(self._grace_seconds)
            await self._until_replaced()
            if taken(*self._place):
                raise BackendRefused(await self._port_in_use())
            launched()
            await to_the_end(self._spawn())
        else:
            launched()
        self._watchers.tell()
        return Upstream(*self._place)

    async def verify(self) -> None:
        """Prove that who listens belongs to the command; see `Backend.verify`."""
        found = await asyncio.to_thread(listeners, *self._place)
        ours = {each.pid for each in await self._all()}
        if found and not any(
            each.pid is None or each.pid in ours or each.name in _PUBLISHERS for each in found
        ):
            raise BackendRefused(await self._port_in_use())

    async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
        """Ask all that belongs to the command to end, then kill it; see `Backend.stop`.

        Cancellation: returns at once; the next `start` or `stop` waits for the program's end.
        """
        program = self._program
        if program is not None:
            program.let_go()
        try:
            killed = await processes.end(
                self._all, self._grace_seconds if grace_seconds is None else grace_seconds
            )
        except Survived as left:
            raise BackendRefused(StopFailed(detail=f"survived SIGKILL: {left}")) from None
        if program is not None:
            await program.over()
            self._program = None
            self._watchers.tell()
        return tuple(Exit(each.name, 128 + signal.SIGKILL) for each in killed)

    async def observe(self) -> Observation:
        """Look once; never fails."""
        if self._program is not None:
            return self._program.seen
        return Observation(running=False, remains=bool(await self._all()))

    def watch(self) -> AsyncIterator[Observation]:
        """Yield an observation now and after every change; see `Backend.watch`."""
        return self._watchers.watch(self.observe)

    async def log_tail(self) -> tuple[str, ...]:
        """The last lines the command wrote since its last start."""
        return self._program.tail.lines if self._program is not None else ()

    async def close(self) -> None:
        """Stop the command, since nobody could stop or adopt it later."""
        await self.stop(self._grace_seconds)

    @property
    def _place(self) -> tuple[str, int]:
        return self._unit.host, self._unit.port

    async def _all(self) -> list[Seen]:
        """What lives of the command, and what proxies that are gone have left in its place."""
        seen = await asyncio.to_thread(processes.look)
        orphaned = {each for each in processes.marks_at(seen, self._mark.place) if each.orphaned}
        leader = self._program.leader if self._program is not None else None
        found = processes.members(seen, orphaned | {self._mark}, leader)
        self._tell_orphans({each for each in found if each.mark in orphaned})
        return found

    def _tell_orphans(self, orphans: set[Seen]) -> None:
        new = [each for each in orphans if (each.pid, each.born) not in self._orphans_told]
        if new:
            _log.warning(
                "left over from a proxy that was killed: ends with the idle time or the next start",
                extra={"service": self._host, "processes": sorted(map(str, new))},
            )
        self._orphans_told.update((each.pid, each.born) for each in new)

    async def _until_replaced(self) -> None:
        """Wait for the end of another backend's command of this proxy: it is being retired."""
        while True:
            seen = await asyncio.to_thread(processes.look)
            marks = processes.marks_at(seen, self._mark.place) - {self._mark}
            others = {each for each in marks if each.owner == self._mark.owner}
            if not (living := processes.members(seen, others)):
                return
            await processes.gone(living)

    async def _port_in_use(self) -> PortInUse:
        found = await asyncio.to_thread(listeners, *self._place)
        who = " and ".join(map(str, found)) or "somebody"
        host, port = self._place
        return PortInUse(detail=f"{who} listens on {host}:{port}")

    async def _spawn(self) -> None:
        unit = self._unit
        environment = {
            **_handed_on(os.environ),
            **unit.env,
            processes.VARIABLE: str(self._mark),
        }
        argv = [*_leash(), *unit.command]
        _check_executable(unit.command[0], unit.cwd, environment)
        try:
            _, program = await asyncio.get_running_loop().subprocess_exec(
                lambda: _Program(self._host, unit.command[0], self._all, self._watchers.tell),
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=unit.cwd,
                env=environment,
                start_new_session=True,
            )
        except OSError as cause:
            raise BackendRefused(StartFailed(detail=str(cause))) from cause
        self._program = program


def _handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name in _HANDED_ON or name.startswith("LC_")
    }


def _leash() -> list[str]:
    """What to put before a command so that the kernel kills it when the proxy dies.

    A launcher that sets PR_SET_PDEATHSIG and turns into the command, since to set it in a forked
    copy of the proxy (`preexec_fn`) is unsafe beside threads. Only the command itself is on the
    leash, not its children.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _check_executable(command: str, cwd: Path | None, environment: dict[str, str]) -> None:
    """Find out what the launcher could only report as an exit.

    Raises:
        BackendRefused: there is no such folder, or no such program that may be executed.
    """
    if cwd is not None and not cwd.is_dir():
        raise BackendRefused(Misconfigured(detail=f"cwd: {cwd} is no folder"))
    program = str((cwd or Path.cwd()) / command) if "/" in command else command
    if shutil.which(program, path=environment.get("PATH")) is None:
        raise BackendRefused(Misconfigured(detail=f"command: no program {program!r} can be run"))


class _Program(asyncio.SubprocessProtocol):
    """One run of the command.

    Args:
        service: for its output's lines in the log.
        part: what its end is called by.
        find: what lives of it, its children included.
        changed: is called after every change of `seen`.

    Attributes:
        tail: the end of its output.
        seen: what it looks like from outside.
        leader: the command's pid, which its group and session bear as well; None once all are
            empty, since it may come again then.
    """

    def __init__(
        self,
        service: str,
        part: str,
        find: Callable[[], Awaitable[list[Seen]]],
        changed: Callable[[], None],
    ) -> None:
        self.tail = Tail()
        self.seen = Observation(running=True)
        self.leader: int | None = None
        self._service = service
        self._part = part
        self._find = find
        self._changed = changed
        self._read = asyncio.Event()
        self._exited = asyncio.Event()
        # Both as soon as the command runs, that is for whoever gets to see the program:
        self._transport: asyncio.SubprocessTransport
        self._aftermath: asyncio.Task[None]

    @property
    def running(self) -> bool:
        """Whether something of it lives and has not been told to end."""
        return self.seen.running

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.leader = self._transport.get_pid()
        self._aftermath = asyncio.get_running_loop().create_task(self._outlive())

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        for line in self.tail.feed(data):
            _log.info("output", extra={"service": self._service, "line": line})

    def process_exited(self) -> None:
        self._exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._read.set()

    def let_go(self) -> None:
        """It is about to be ended: its end is no news any more."""
        self._aftermath.cancel()
        self.seen = Observation(running=False)

    async def over(self) -> None:
        """Return when its end has been taken note of, so that no zombie is left."""
        await self._exited.wait()
        self._transport.close()

    async def _outlive(self) -> None:
        """Tell of an exit nobody asked for, and of what lives on after it."""
        await self._exited.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_OUTPUT_AFTER_EXIT_SECONDS):
                await self._read.wait()
        code = self._transport.get_returncode() or 0
        if code == 0 and await self._find():  # a start script: what it left is the service
            _log.info("runs in the background", extra={"service": self._service})
            await self._until_all_gone()
        # Docker's and the shells' convention: 128 + signal.
        end = Exit(self._part, code if code >= 0 else 128 - code, log_tail=self.tail.lines)
        self._see(Observation(running=False, exit=end, remains=bool(await self._find())))
        await self._until_all_gone()
        self._see(Observation(running=False, exit=end))

    async def _until_all_gone(self) -> None:
        while living := await self._find():
            await processes.gone(living)
        self.leader = None

    def _see(self, seen: Observation) -> None:
        if seen != self.seen:
            self.seen = seen
            self._changed()
