"""Which processes belong together, and how they end: on real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from autostart_proxy.backends import processes
from autostart_proxy.backends.processes import Mark, Seen
from tests.backends.contract import eventually

Run = Callable[..., int]

SLEEP = ("sleep", "600")
STUBBORN = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Run]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str, mark: Mark | None = None, session: bool = True) -> int:
        environment = os.environ | ({} if mark is None else {processes.VARIABLE: str(mark)})
        started.append(
            subprocess.Popen(command, env=environment, start_new_session=session)  # noqa: S603
        )
        return started[-1].pid

    yield start
    for each in started:
        for left in processes.members(processes.look(), set(), each.pid):
            os.kill(left.pid, signal.SIGKILL)
        each.kill()
        each.wait()


def found(mark: Mark, leader: int | None = None) -> list[int]:
    return [each.pid for each in processes.members(processes.look(), {mark}, leader)]


def test_a_mark_is_read_as_it_was_written() -> None:
    mark = Mark.new("::1", 80)
    assert Mark.read(str(mark)) == mark
    assert Mark.new("::1", 80) != mark


def test_what_is_no_mark_is_none() -> None:
    assert Mark.read("") is None
    assert Mark.read("127.0.0.1:80") is None


async def test_a_mark_is_orphaned_as_soon_as_its_proxy_is_gone(run: Run) -> None:
    mine = Mark.new("127.0.0.1", 80)
    assert not mine.orphaned
    assert Mark(mine.place, f"{os.getpid()}/1", "1").orphaned  # the same pid, born another time
    assert Mark(mine.place, "no such", "1").orphaned
    assert Mark(mine.place, "4194304/1", "1").orphaned


async def test_children_are_found_in_whatever_session_they_are(run: Run) -> None:
    mark = Mark.new("127.0.0.1", 80)
    leader = run("sh", "-c", "setsid sleep 600 & sleep 600 & wait", mark=mark)
    await eventually(lambda: len(found(mark)) == 3)
    assert leader in found(mark)


async def test_children_that_wiped_their_environment_are_found_by_descent(run: Run) -> None:
    mark = Mark.new("127.0.0.1", 80)
    run("sh", "-c", "setsid env -i sleep 600 & wait", mark=mark)
    await eventually(lambda: len(found(mark)) == 2)


async def test_orphans_that_wiped_their_environment_are_found_by_their_session(run: Run) -> None:
    mark = Mark.new("127.0.0.1", 80)
    leader = run("sh", "-c", "env -i sleep 600 &", mark=mark)
    await eventually(lambda: found(mark, leader) != [] and leader not in found(mark, leader))
    (orphan,) = processes.members(processes.look(), {mark}, leader)
    assert orphan.name == "sleep"
    assert await processes.end(lambda: _find(mark, leader), 5) == []


def test_others_are_not_found_and_neither_are_we() -> None:
    ours = Mark.new("127.0.0.1", 80)
    assert found(ours) == []
    # Not even where this process itself is in the group that is asked for.
    assert os.getpid() not in found(ours, os.getpgid(0))


async def test_places_are_told_apart(run: Run) -> None:
    here, there = Mark.new("127.0.0.3", 80), Mark.new("127.0.0.3", 81)
    run(*SLEEP, mark=here)
    run(*SLEEP, mark=there)
    await eventually(lambda: bool(found(here) and found(there)))
    assert processes.marks_at(processes.look(), here.place) == {here}


async def test_the_stubborn_are_killed_and_named(run: Run) -> None:
    mark = Mark.new("127.0.0.1", 80)
    stubborn, gentle = run(*STUBBORN, mark=mark), run(*SLEEP, mark=mark)
    await asyncio.sleep(0.3)
    assert {stubborn, gentle} <= {*found(mark)}
    killed = await processes.end(lambda: _find(mark), 0.5)
    assert stubborn in {each.pid for each in killed}
    assert gentle not in {each.pid for each in killed}
    assert found(mark) == []


async def test_what_is_started_by_the_dying_ends_as_well(run: Run) -> None:
    mark = Mark.new("127.0.0.1", 80)
    program = "trap 'setsid sleep 600 & exit 0' TERM; echo; while :; do sleep 0.05; done"
    run("sh", "-c", program, mark=mark)
    await asyncio.sleep(0.3)
    await processes.end(lambda: _find(mark), 10)
    assert found(mark) == []


async def test_one_that_has_the_pid_of_another_gets_no_signal(run: Run) -> None:
    pid = run(*SLEEP)
    (seen,) = [each for each in processes.look() if each.pid == pid]
    earlier = Seen(pid, seen.name, seen.parent, pid, pid, seen.born - 1, None)
    await processes.gone([earlier], 9)
    assert pid in {each.pid for each in processes.look()}


async def test_zombies_do_not_live(run: Run) -> None:
    pid = run(sys.executable, "-c", "")
    await eventually(lambda: pid not in {each.pid for each in processes.look()})
    assert os.path.exists(f"/proc/{pid}")  # noqa: ASYNC240 - it is there: nobody has reaped it


async def _find(mark: Mark, leader: int | None = None) -> list[Seen]:
    return processes.members(processes.look(), {mark}, leader)
