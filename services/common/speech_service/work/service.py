"""The heart of a speech service: from an open file to segments, a few jobs at a time.

The event loop only ever waits; probing, loading and decoding run in threads. What a job holds (its
file, its turn, its claim on the model) is given back when its thread has ended, however the client
left, so nothing is counted as free while it is still in use.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..contract.engine import Engine, Item
from ..contract.errors import ModelUnavailable, QueueFull, ShuttingDown, SpeechError
from ..contract.settings import Settings
from ..contract.transcript import Options, Progress, Segment, Stage, Summary, Transcript
from ..media.audio import Recording
from .metrics import Metrics
from .models import ModelPool
from .turns import Turns

log = logging.getLogger(__name__)

Arrival: TypeAlias = Item | Exception | None
"""What a job's thread sends: None ends it."""

_RETRY_SECONDS = (5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class Readiness:
    """Whether a request would be served at once, and if not, why.

    A model that its idle time has taken out of memory counts as ready: the next request loads it,
    and a prober that waits for it would wait for ever.
    """

    ready: bool = False
    reason: str = "the model is being loaded"


class SpeechService:
    """Everything behind the routes; `start` and `close` frame its life."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = Metrics()
        self.turns = Turns(settings.jobs, settings.max_queued)
        self.models: ModelPool[Any] = ModelPool(engine.load, settings.ttl, self.metrics.model_load)
        self.metrics.queued.set_function(lambda: self.turns.waiting)
        self.metrics.running.set_function(lambda: self.turns.running)
        self.metrics.models_loaded.set_function(lambda: len(self.models.loaded))
        self.metrics.live_sessions.set_function(lambda: self.live_sessions)
        self.live_sessions = 0
        self.readiness = Readiness()
        self.closing = False
        self._stopping = threading.Event()
        self._preparing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load the default model and those of PRELOAD_MODELS; return at once."""
        self._preparing = asyncio.get_running_loop().create_task(self._prepare())

    async def close(self) -> None:
        """Stop whatever still runs; jobs end at their next segment."""
        self.closing = True
        self._stopping.set()
        if self._preparing:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)

    @contextmanager
    def live_session(self) -> Iterator[None]:
        """Count a live session while it lasts.

        Raises:
            QueueFull: MAX_LIVE_SESSIONS are open already.
        """
        if self.live_sessions >= self.settings.max_live_sessions:
            raise QueueFull(f"{self.live_sessions} live sessions are open already", 60.0)
        self.live_sessions += 1
        try:
            yield
        finally:
            self.live_sessions -= 1

    async def resolve(self, model: str | None) -> str:
        """Return the canonical name of the model a client asked for.

        Raises:
            ModelNotFound: no such name.
        """
        return await asyncio.to_thread(self.engine.resolve, model)

    async def submit(self, recording: Recording, model: str | None, options: Options) -> Job:
        """Queue a transcription and return once it runs.

        Args:
            recording: owned by the job from here on; it is closed whatever happens.
            model: what the client asked for.
            options: what is to be done.
        Raises:
            ModelNotFound, ModelUnavailable, QueueFull, NotAudio, NoAudio, TooLong, ShuttingDown.
        Cancellation: leaves the queue.
        """
        limit = self.settings.max_audio_seconds
        with ExitStack() as held:
            held.callback(recording.close)
            if self.closing:
                raise ShuttingDown("the service is shutting down")
            self.turns.check()
            name = await self.resolve(model)
            await asyncio.to_thread(recording.probe, limit)
            turn = await self.turns.take()
            held.callback(turn.release)
            lease = await self.models.acquire(name)
            held.callback(lease.release)
            items = lease.model.transcribe(recording.decode(limit), options)
            return Job(items, options, held.pop_all(), self._stopping, self.metrics)

    async def transcribe(
        self, recording: Recording, model: str | None, options: Options
    ) -> Transcript:
        """Transcribe a whole recording; arguments and errors as `submit`.

        Cancellation: the job stops at its next segment.
        """
        return await (await self.submit(recording, model, options)).transcript()

    async def _prepare(self) -> None:
        """Import and load what is needed, and say so; a failure is the operator's to mend."""
        try:
            await asyncio.to_thread(self.engine.prepare, self.models.borrow)
            await self._preload()
            self.readiness = Readiness(False, "libraries are being imported")
            await asyncio.to_thread(self.engine.complete)
        except Exception:
            log.exception("the service cannot be prepared")
            self.readiness = Readiness(False, "the service cannot be prepared; its log says why")
        else:
            self.readiness = Readiness(True, "")

    async def _preload(self) -> None:
        """Load what is configured; where a model cannot be had now, try again and again."""
        for name in [None, *self.settings.preload_models]:
            attempt = 0
            while not await self._preload_one(name):
                await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1

    async def _preload_one(self, name: str | None) -> bool:
        """Load one model and let its idle clock start; False if it is worth trying again."""
        try:
            (await self.models.acquire(await self.resolve(name))).release()
        except SpeechError as error:
            log.error("model cannot be loaded: %s", error.message)
            self.readiness = Readiness(False, error.message)
            # What does not exist will not appear; ask the operator, not the hub.
            return False if isinstance(error, ModelUnavailable) else await _for_ever()
        return True


async def _for_ever() -> bool:
    await asyncio.Event().wait()
    return False


class Job:
    """A running transcription: iterate over its segments, or wait for its `transcript`.

    `watch` yields the progress of its stages as well.

    Args:
        items: what the recognizer yields; run and closed in a thread.
        options: what was asked.
        held: closed on the event loop once the thread has ended.
        stopping: set when the service ends.
        metrics: told of the finished recording.
    """

    def __init__(
        self,
        items: Generator[Item, None, None],
        options: Options,
        held: ExitStack,
        stopping: threading.Event,
        metrics: Metrics,
    ) -> None:
        self.options = options
        self.segments: list[Segment] = []
        self.summary: Summary | None = None
        self._metrics = metrics
        self._cancelled = threading.Event()
        self._stopping = stopping
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._thread = self._loop.run_in_executor(None, self._work, items)
        self._thread.add_done_callback(lambda thread: held.close())

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

    def _work(self, items: Generator[Item, None, None]) -> None:
        """Run in a thread until the recording, or the interest in it, ends."""
        started = time.monotonic()
        begun: dict[Stage, float] = {}
        try:
            with closing(items):
                for item in items:
                    self._send(item)
                    if isinstance(item, Progress):
                        self._time(item, begun)
                    if isinstance(item, Summary):
                        self._metrics.recording(item.duration, time.monotonic() - started)
                    elif self._cancelled.is_set() or self._stopping.is_set():
                        self._metrics.cancelled.inc()
                        break
            self._send(None)
        except Exception as error:
            self._send(error)

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
