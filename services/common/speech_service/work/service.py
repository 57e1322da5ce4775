"""The heart of a speech service: from an open file to segments, a few jobs at a time.

The event loop only ever waits; probing, loading and decoding run in threads.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ..contract.engine import Engine
from ..contract.errors import ModelUnavailable, QueueFull, ShuttingDown, SpeechError
from ..contract.settings import Settings
from ..contract.transcript import Options, Transcript
from ..media.audio import Recording
from .job import Job
from .metrics import Metrics
from .models import ModelPool
from .turns import Turns

log = logging.getLogger(__name__)

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
        self.models: ModelPool[Any] = ModelPool(
            engine.load,
            settings.ttl,
            self.metrics.model_load,
            lambda model: getattr(model, "worn_out", False),
        )
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

    async def provide(self, model: str | None) -> str:
        """Return the canonical name of a model that every request of a session can have.

        One that is not on this machine is fetched first; the default model is left to the service,
        which may still be fetching it.

        Raises:
            ModelNotFound, ModelUnavailable: it cannot be had.
        """
        name = await self.resolve(model)
        if name != self.engine.default_model:
            await asyncio.to_thread(self.engine.fetch, name, lambda done, total: None)
        return name

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
