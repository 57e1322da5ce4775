"""A plain command as a service: a program in a virtualenv needs no container.

- The command runs in a process group of its own, so that a stop reaches all its children.
- Nothing could adopt it after the proxy is gone: `close` stops it, and where util-linux'
  `setpriv` is installed the kernel kills it should the proxy itself be killed.
- Its output goes to the log, line by line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

from autostart_proxy.backends import OWN_GRACE_SECONDS, Exit, Observation, Upstream
from autostart_proxy.backends.cancellation import to_the_end
from autostart_proxy.backends.folders import folder_problems
from autostart_proxy.backends.tail import Tail
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.units import CommandUnit
from autostart_proxy.errors import BackendRefused, StartFailed, StopFailed

_log = logging.getLogger(__name__)

_OUTPUT_AFTER_EXIT_SECONDS = 0.25
"""How long to wait for a dead program's last output: its children may hold the pipe open."""

_KILL_SECONDS = 5.0
"""How long a killed program may take to vanish: the kernel may be waiting for its disk."""

_GROUP_POLL_SECONDS = 0.02


def open_backends() -> Callable[[ServiceConfig], ProcessBackend]:
    """Return what makes the backends of a fleet; processes share nothing."""

    def make(config: ServiceConfig) -> ProcessBackend:
        if not isinstance(config.unit, CommandUnit):
            raise TypeError("a process needs a command")
        grace = OWN_GRACE_SECONDS if config.stop_timeout is None else config.stop_timeout
        return ProcessBackend(config.unit, config.name, grace)

    return make


def missing(unit: CommandUnit) -> Iterator[tuple[str, str]]:
    """Yield the keys that name something that is not there, and why not."""
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
        name: of the service, for its lines in the log.
        grace_seconds: for what is ended without a `stop`: children that outlived their parent, and
            the program when the backend is closed.
    """

    def __init__(self, unit: CommandUnit, name: str, grace_seconds: float) -> None:
        self._unit = unit
        self._name = name
        self._grace_seconds = grace_seconds
        self._program: _Program | None = None
        self._watchers: set[asyncio.Event] = set()

    async def start(self, launched: Callable[[], None]) -> Upstream:
        """Start the command unless it runs; see `Backend.start`. It needs no preparation."""
        if self._program is None or not self._program.running:
            await self.stop(self._grace_seconds)  # children that outlived their parent
            launched()
            await to_the_end(self._spawn())
        else:
            launched()
        self._changed()
        return Upstream(self._unit.host, self._unit.port)

    async def verify(self) -> None:
        """Nothing to prove yet."""

    async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
        """Ask the whole process group to end, then kill it; see `Backend.stop`.

        Cancellation: returns at once; the next `start` or `stop` waits for the program's end.
        """
        if self._program is None:
            return ()
        grace = self._grace_seconds if grace_seconds is None else grace_seconds
        killed = await self._program.end(grace)
        self._program = None
        self._changed()
        return killed

    async def observe(self) -> Observation:
        """Look once; never fails."""
        if self._program is None:
            return Observation(running=False)
        return Observation(running=self._program.running, exit=self._program.exit)

    async def watch(self) -> AsyncIterator[Observation]:
        """Yield an observation now and after every change; see `Backend.watch`."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            while True:
                changed.clear()
                yield await self.observe()
                await changed.wait()
        finally:
            self._watchers.discard(changed)

    async def log_tail(self) -> tuple[str, ...]:
        """The last lines the command wrote since its last start."""
        return self._program.tail.lines if self._program is not None else ()

    async def close(self) -> None:
        """Stop the command, since nobody could stop or adopt it later."""
        await self.stop(self._grace_seconds)

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    async def _spawn(self) -> None:
        unit = self._unit
        environment = os.environ | unit.env
        argv = [*_leash(), *unit.command]
        try:
            _check_executable(unit.command[0], unit.cwd, environment)
            _, program = await asyncio.get_running_loop().subprocess_exec(
                lambda: _Program(self._name, unit.command[0], self._changed),
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
        OSError: there is no such folder, or no such program that may be executed.
    """
    if cwd is not None and not cwd.is_dir():
        raise FileNotFoundError(f"cwd is not a folder: {cwd}")
    if "/" in command:
        command = str((cwd or Path.cwd()) / command)
    if shutil.which(command, path=environment.get("PATH")) is None:
        raise FileNotFoundError(f"no executable program {command!r}; give its full path")


class _Program(asyncio.SubprocessProtocol):
    """One run of the command, from its start until its group is gone.

    Attributes:
        exit: how it ended; None while it runs and where it was told to end.
        tail: the end of its output.
    """

    def __init__(self, service: str, part: str, changed: Callable[[], None]) -> None:
        self.exit: Exit | None = None
        self.tail = Tail()
        self._service = service
        self._part = part
        self._changed = changed
        self._ending = False
        self._over = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None
        self._group = 0

    @property
    def running(self) -> bool:
        """Whether the command lives and has not been told to end."""
        return not self._ending and not self._over.is_set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._group = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        for line in self.tail.feed(data):
            _log.info("output", extra={"service": self._service, "line": line})

    def process_exited(self) -> None:
        self._over.set()
        asyncio.get_running_loop().call_later(_OUTPUT_AFTER_EXIT_SECONDS, self._report)

    def connection_lost(self, exc: Exception | None) -> None:
        self._report()

    def _report(self) -> None:
        """Tell of an exit nobody asked for, once, when the last output has been read."""
        if self._ending or self.exit is not None or self._transport is None:
            return
        code = self._transport.get_returncode()
        if code is None:
            return
        # Docker's and the shells' convention: 128 + signal.
        self.exit = Exit(self._part, code if code >= 0 else 128 - code, log_tail=self.tail.lines)
        self._changed()

    async def end(self, grace_seconds: float) -> tuple[Exit, ...]:
        """End the whole group: SIGTERM, and SIGKILL to what is left after the grace period.

        Returns:
            Itself, if it had to be killed.
        Raises:
            BackendRefused: it did not even vanish after SIGKILL.
        """
        self._ending = True
        killed: tuple[Exit, ...] = ()
        self._signal(signal.SIGCONT)  # one that was halted by hand would not see the next
        if self._signal(signal.SIGTERM) and not await self._gone(grace_seconds):
            killed = (Exit(self._part, 128 + signal.SIGKILL),)
            self._signal(signal.SIGKILL)
            if not await self._gone(_KILL_SECONDS) and not self._over.is_set():
                raise BackendRefused(StopFailed(detail=f"{self._part} survived SIGKILL"))
        if self._transport is not None:
            self._transport.close()
        return killed

    async def _gone(self, limit_seconds: float) -> bool:
        """Whether the command and all of its group vanished within the limit."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self._over.wait()
                # Nobody tells of the end of a child's child, so there is no event to wait for.
                while _lives(self._group):  # noqa: ASYNC110
                    await asyncio.sleep(_GROUP_POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; False if it is empty."""
        try:
            os.killpg(self._group, number)
        except ProcessLookupError:
            return False
        return True


def _lives(group: int) -> bool:
    """Whether a process group has a member that is not dead.

    The dead ones count for the kernel until somebody reaps them, which inside a container may
    be never; so its word alone is only good for "empty".
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # proc(5): pid (name, which may hold anything) state parent group ...
            state, _, member_of = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(member_of) == group and state not in "ZX":
            return True
    return False
