"""Progress of blocking work that reports through a callback, as items of a generator."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

from speech_service.contract.engine import WORKER_THREADS
from speech_service.contract.transcript import Progress, Stage

T = TypeVar("T")

Report: TypeAlias = Callable[[float], None]
"""Told how far the work is, in percent."""


class Abandoned(Exception):
    """Nobody waits for the work any more; raised inside it, from its report."""


def watched(stage: Stage, work: Callable[[Report], T]) -> Generator[Progress, None, T]:
    """Run `work` in a thread of its own, yield its progress, return its result.

    Raises:
        whatever `work` raises.
    Cancellation: closing the generator makes the next report raise `Abandoned`, and returns once
        the thread has ended, so that nothing is counted as free which is still in use.
    """
    reports: SimpleQueue[float | None] = SimpleQueue()
    abandoned = False

    def report(percent: float) -> None:
        if abandoned:
            raise Abandoned
        reports.put(percent / 100)

    with ThreadPoolExecutor(1, f"{WORKER_THREADS}-{stage}") as thread:
        try:
            working = thread.submit(work, report)
            working.add_done_callback(lambda _: reports.put(None))
            yield Progress(stage, 0.0)
            while (done := reports.get()) is not None:
                # The end is told once, when the work has really returned.
                if done < 1:
                    yield Progress(stage, done)
            result = working.result()
        finally:
            abandoned = True
    yield Progress(stage, 1.0)
    return result
