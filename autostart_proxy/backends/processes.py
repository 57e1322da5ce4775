"""Which processes belong to a command, and how they end.

A process group is not enough: a child may leave it (`setsid`), and nothing tells of a group whose
proxy was killed. So every command carries a mark in its environment, which its children inherit;
what has wiped its environment is found by its group, its session and its parents.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VARIABLE = "AUTOSTART_PROXY_UNIT"
"""The environment variable that holds the mark."""

_ASSIGNMENT = f"{VARIABLE}=".encode()

_EXECUTION_SECONDS = 0.02
"""How long the kernel takes to put one program in another's place, and more."""

_KILL_SECONDS = 5.0
"""How long a killed process may take to vanish: the kernel may be waiting for its disk."""

_serial = itertools.count(1)


class Survived(Exception):
    """Processes that the kernel could not end."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose a process is.

    Attributes:
        place: where the command listens: what tells one service's processes from another's.
        owner: the proxy that started it, as pid and time of birth, since pids come again.
        serial: which of that proxy's backends, since a reload may bring a second one.
    """

    place: str
    owner: str
    serial: str

    @classmethod
    def new(cls, host: str, port: int) -> Mark:
        """A mark for a backend of this proxy."""
        return cls(f"{host}:{port}", _ourselves(), str(next(_serial)))

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """The mark that `str` wrote, or None."""
        parts = text.split(" ")
        return cls(*parts) if len(parts) == 3 else None

    def __str__(self) -> str:
        """As it stands in the environment."""
        return f"{self.place} {self.owner} {self.serial}"

    @property
    def orphaned(self) -> bool:
        """Whether the proxy that set the mark is gone."""
        pid, _, born = self.owner.partition("/")
        return not pid.isdecimal() or str(_born(int(pid))) != born


@dataclass(frozen=True, slots=True)
class Seen:
    """One living process at one moment.

    `born` is in the kernel's ticks since the machine started: no other process with this pid had
    the same.
    """

    pid: int
    name: str
    parent: int
    group: int
    session: int
    born: int
    mark: Mark | None

    def __str__(self) -> str:
        """For people."""
        return f"process {self.pid} ({self.name})"


def look() -> list[Seen]:
    """Every process that lives; dead ones that nobody has reaped (zombies) do not.

    Those of other users have no mark for us, unless we are root. Reads two files for each process
    of the machine: call it from a thread.
    """
    pids = (int(each) for each in os.listdir("/proc") if each.isdecimal())
    return [seen for pid in pids if (seen := _look_at(pid)) is not None]


def members(seen: Iterable[Seen], marks: Set[Mark], leader: int | None = None) -> list[Seen]:
    """Those that carry a mark or belong to the leader's group or session, and all they started.

    Never this process or what it runs in, whatever they carry.
    """
    seen = list(seen)
    spared = _ourselves_and_above(seen)
    chosen = {
        each.pid for each in seen if each.mark in marks or leader in (each.group, each.session)
    }
    chosen -= spared
    while more := {each.pid for each in seen if each.parent in chosen} - chosen - spared:
        chosen |= more
    return [each for each in seen if each.pid in chosen]


def marks_at(seen: Iterable[Seen], place: str) -> set[Mark]:
    """The marks of commands that listen, or were to listen, at a place."""
    return {each.mark for each in seen if each.mark is not None and each.mark.place == place}


async def gone(processes: Iterable[Seen], *signals: int) -> None:
    """Send signals to processes, and return when all have ended.

    The kernel tells of each end (pidfd_open(2), Linux 5.3), so nothing is polled, and a signal
    never reaches another process that got the same pid meanwhile.
    """
    loop = asyncio.get_running_loop()
    with _held(processes) as handles:
        ends = []
        for handle in handles:
            for number in signals:
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, number)
            end = loop.create_future()
            loop.add_reader(handle, _set, end)
            ends.append(end)
        try:
            await asyncio.gather(*ends)
        finally:
            for handle in handles:
                loop.remove_reader(handle)


async def end(find: Callable[[], Awaitable[list[Seen]]], grace_seconds: float) -> list[Seen]:
    """End whatever `find` finds until it finds nothing: SIGTERM, after the grace period SIGKILL.

    Those that are started meanwhile are asked to end as well.

    Returns:
        Those that had to be killed.
    Raises:
        Survived: some did not even vanish after SIGKILL.
    """
    loop, killed, left = asyncio.get_running_loop(), list[Seen](), list[Seen]()
    # SIGCONT: one that was halted by hand would not see the other.
    gently, roughly = (signal.SIGTERM, signal.SIGCONT), (signal.SIGKILL,)
    for signals, seconds in ((gently, grace_seconds), (roughly, _KILL_SECONDS)):
        limit = loop.time() + seconds
        while left := await find() or await _find_again(find):
            if signals is roughly:
                killed += left
            try:
                async with asyncio.timeout_at(limit):
                    await gone(left, *signals)
            except TimeoutError:
                break
        else:
            return killed
    raise Survived(", ".join(map(str, left)))


async def _find_again(find: Callable[[], Awaitable[list[Seen]]]) -> list[Seen]:
    """Look a second time before believing that nothing is left: what was started while /proc was
    read was not in it, and a process that is just executing a program has no environment."""
    await asyncio.sleep(_EXECUTION_SECONDS)
    return await find()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@contextmanager
def _held(processes: Iterable[Seen]) -> Iterator[list[int]]:
    """Handles of the processes that still live, whoever has their pids next."""
    handles: list[int] = []
    try:
        for each in processes:
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(each.pid)
                handles.append(handle)
                if _born(each.pid) != each.born:
                    os.close(handles.pop())
        yield handles
    finally:
        for handle in handles:
            os.close(handle)


def _ourselves_and_above(seen: Iterable[Seen]) -> set[int]:
    parents = {each.pid: each.parent for each in seen}
    found: set[int] = set()
    pid = os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


def _look_at(pid: int) -> Seen | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:  # ended meanwhile
        return None
    # proc_pid_stat(5): pid (name, which may hold anything) state parent group session ...
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    if fields[0] in "ZX":
        return None
    parent, group, session, born = (int(fields[at]) for at in (1, 2, 3, 19))
    return Seen(pid, head.partition("(")[2], parent, group, session, born, _mark_of(pid))


def _mark_of(pid: int) -> Mark | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # another user's, or ended meanwhile
        return None
    found = [each for each in environment.split(b"\0") if each.startswith(_ASSIGNMENT)]
    return (
        Mark.read(found[0].removeprefix(_ASSIGNMENT).decode("utf-8", "replace")) if found else None
    )


def _born(pid: int) -> int | None:
    seen = _look_at(pid)
    return None if seen is None else seen.born


@cache
def _ourselves() -> str:
    return f"{os.getpid()}/{_born(os.getpid())}"
