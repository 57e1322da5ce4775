"""One running transcription: a thread that works, and the event loop that waits for its items.

What a job holds (its file, its turn, its claim on the model) is given back when its thread has
ended, however the client left, so nothing is counted as free while it is still in use.

A recognizer may find that it lacks a model. The job begins anew once that has been fetched; while
it waits it has neither thread nor turn, and it waits for no longer than its client does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import ExitStack, closing, suppress
from typing import Any, TypeAlias

from ..contract.engine import Item
from ..contract.errors import ModelMissing, ShuttingDown
from ..contract.transcript import Options, Progress, Segment, Stage, Summary, Transcript
from .metrics import Metrics

log = logging.getLogger(__name__)

Arrival: TypeAlias = Item | Exception | None
"""What comes of a job: None ends it."""

Items: TypeAlias = Generator[Item, None, None]
Again: TypeAlias = Callable[[str], Coroutine[Any, Any, Items]]
"""Gives the turn back, has a model fetched, and returns what the recognizer yields from then on."""


class Job:
    """A running transcription: iterate over its segments, or wait for its `transcript`.

    `watch` yields the progress of its stages as well.

    Args:
        items: what the recognizer yields; run and closed in a thread.
        again: called with the name of each model that the recognizer lacks.
        options: what was asked.
        held: closed on the event loop once nothing works any more.
        stopping: set when the service ends.
        metrics: told of the finished recording.
    """

    def __init__(
        self,
        items: Items,
        again: Again,
        options: Options,
        held: ExitStack,
        stopping: threading.Event,
        metrics: Metrics,
    ) -> None:
        self.options = options
        self.segments: list[Segment] = []
        self.summary: Summary | None = None
        self._again = again
        self._held = held
        self._metrics = metrics
        self._cancelled = threading.Event()
        self._stopping = stopping
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._fetched: set[str] = set()
        self._waiting: asyncio.Task[Items] | None = None
        self._loop = asyncio.get_running_loop()
        self._start(items)

    async def __aiter__(self) -> AsyncIterator[Segment]:
        """Yield segments as they are decoded; errors as `watch`."""
        async for item in self.watch():
            if isinstance(item, Segment):
                yield item

    async def watch(self) -> AsyncIterator[Segment | Progress]:
        """Yield segments as they are decoded, and how far the stages have come.

        Raises:
            SpeechError: what stopped the job.
        """
        while True:
            match await self._arrivals.get():
                case Segment() as segment:
                    self.segments.append(segment)
                    yield segment
                case Progress() as progress:
                    yield progress
                case Summary() as summary:
                    self.summary = summary
                case None:
                    return
                case error:
                    raise error

    async def transcript(self) -> Transcript:
        """Return the finished transcription; cancelling the caller cancels the job."""
        try:
            async for _ in self:
                pass
        finally:
            self.cancel()
        return self.result()

    def result(self) -> Transcript:
        """Return the transcription of a job that has been iterated to its end."""
        if self.summary is None:
            raise ShuttingDown("the service is shutting down")
        return Transcript(self.options.task, self.summary, tuple(self.segments))

    def cancel(self) -> None:
        """Let the job end at its next segment; harmless once it has ended."""
        self._cancelled.set()
        if self._waiting:
            self._waiting.cancel()

    @property
    def _unwanted(self) -> bool:
        return self._cancelled.is_set() or self._stopping.is_set()

    def _start(self, items: Items) -> None:
        thread = self._loop.run_in_executor(None, self._work, items)
        thread.add_done_callback(self._worked)

    def _worked(self, thread: asyncio.Future[str | None]) -> None:
        """Give all back, unless a model is missing: then wait for it, and begin anew."""
        missing = None if thread.cancelled() or thread.exception() else thread.result()
        if missing is None:
            self._held.close()
            return
        self._fetched.add(missing)
        self._waiting = self._loop.create_task(self._again(missing))
        self._waiting.add_done_callback(self._waited)
        if self._unwanted:
            self._waiting.cancel()

    def _waited(self, waiting: asyncio.Task[Items]) -> None:
        try:
            self._start(waiting.result())
            return
        except asyncio.CancelledError:
            self._metrics.cancelled.inc()
            self._arrivals.put_nowait(None)
        except Exception as error:
            self._arrivals.put_nowait(error)
        self._held.close()

    def _work(self, items: Items) -> str | None:
        """Run in a thread until the recording, or the interest in it, ends.

        Returns:
            The model that has to be fetched first, if one is missing.
        """
        started = time.monotonic()
        begun: dict[Stage, float] = {}
        fresh = True
        try:
            with closing(items):
                for item in items:
                    fresh = False
                    self._send(item)
                    if isinstance(item, Progress):
                        self._time(item, begun)
                    if isinstance(item, Summary):
                        for warning in item.warnings:
                            log.warning("transcription: %s", warning)
                        self._metrics.recording(item.duration, time.monotonic() - started)
                    elif self._unwanted:
                        self._metrics.cancelled.inc()
                        break
            self._send(None)
        except ModelMissing as error:
            if fresh and error.name not in self._fetched:
                return error.name
            self._send(error)
        except Exception as error:
            self._send(error)
        return None

    def _time(self, progress: Progress, begun: dict[Stage, float]) -> None:
        """Record how long a stage took once it is over."""
        since = begun.setdefault(progress.stage, time.monotonic())
        if progress.done >= 1:
            seconds = time.monotonic() - since
            log.info("stage", extra={"stage": progress.stage, "seconds": round(seconds, 3)})
            self._metrics.stage_seconds.labels(progress.stage).observe(seconds)

    def _send(self, item: Arrival) -> None:
        """Hand something from the thread to the event loop, if that still runs."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrivals.put_nowait, item)
