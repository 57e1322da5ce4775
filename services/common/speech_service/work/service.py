"""The heart of a speech service: from an open file to segments, a few jobs at a time.

The event loop only ever waits; probing, loading and decoding run in threads. What waits for others
(the hub, an address, a client) takes none of those: it has its own places, its own limit, and
nobody's turn.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..contract.engine import WORKER_THREADS, Engine, Reached
from ..contract.errors import ModelUnavailable, QueueFull, ShuttingDown, SpeechError
from ..contract.settings import Settings
from ..contract.transcript import Options, Transcript
from ..media.audio import Recording
from .fetching import Fetches
from .job import Items, Job
from .metrics import Metrics
from .models import Lease, ModelPool
from .places import Places, Room
from .turns import Turns

log = logging.getLogger(__name__)

_RETRY_SECONDS = (5.0, 10.0, 30.0, 60.0)
_UPLOAD_SECONDS = 10.0
_SESSION_SECONDS = 60.0
"""What an upload and a live session are expected to take, for those who find no place."""

_FIELDS_BYTES = 48 << 20
"""What the fields of all forms may keep, until they are answered: four with four voices each."""

_HEARINGS = 2
"""Live sessions in whose audio speech is looked for at once, which takes half a MB for a second."""

_GREETING_CONNECTIONS = 8
"""Beyond twice the sessions: those who are to be told in their protocol that there is no room."""


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
        # Those whom `turns` would let run or wait, and the service itself.
        waiting = settings.max_queued + settings.jobs + 1
        self.fetches = Fetches(self._fetch, settings.max_fetch_seconds, waiting)
        self.uploads = Places(
            settings.uploads, "uploads are being read", "MAX_UPLOADS", _UPLOAD_SECONDS
        )
        self.fields = Room(_FIELDS_BYTES, "the fields of forms", _UPLOAD_SECONDS)
        self.hearings = asyncio.Semaphore(_HEARINGS)
        live = settings.max_live_sessions
        self.live_sessions = Places(
            live, "live sessions are open", "MAX_LIVE_SESSIONS", _SESSION_SECONDS
        )
        self.live_connections = Places(
            2 * live + _GREETING_CONNECTIONS,
            "live connections are open",
            "MAX_LIVE_SESSIONS",
            _SESSION_SECONDS,
        )
        self.downloads = ThreadPoolExecutor(settings.uploads, f"{WORKER_THREADS}-download")
        self.metrics.queued.set_function(lambda: self.turns.waiting)
        self.metrics.running.set_function(lambda: self.turns.running)
        self.metrics.models_loaded.set_function(lambda: len(self.models.loaded))
        self.metrics.live_sessions.set_function(lambda: self.live_sessions.taken)
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
        await self.fetches.close()
        self.models.close()
        self.downloads.shutdown(wait=False, cancel_futures=True)

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
            QueueFull: too many wait for models.
        Cancellation: ends the fetch, unless somebody else waits for it.
        """
        name = await self.resolve(model)
        if name != self.engine.default_model:
            await self.fetched(name)
        return name

    async def fetched(self, name: str, progress: Reached = lambda done, total: None) -> bool:
        """Return once the model of a canonical name is on this machine; errors as `provide`.

        Returns:
            Whether it had to be fetched.
        """
        if await asyncio.to_thread(self.engine.is_local, name):
            return False
        await self.fetches.wait_for(name, progress)
        return True

    async def acquire(self, name: str) -> Lease[Any]:
        """Claim the model of a canonical name, fetching and loading it if need be.

        Raises:
            ModelNotFound, ModelUnavailable: it cannot be had.
            QueueFull: too many wait for models.
        """
        await self._present(name)
        return await self.models.acquire(name)

    async def _present(self, name: str) -> None:
        """Return once a model can be loaded, or has been."""
        if name not in self.models.loaded:
            await self.fetched(name)

    async def _fetch(self, name: str, progress: Reached) -> None:
        await self.engine.fetch(name, progress)

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
            # Before the turn: who waits for the hub keeps nobody from transcribing.
            await self._present(name)
            claims = held.enter_context(ExitStack())

            async def begin() -> Items:
                claims.callback((await self.turns.take()).release)
                lease = await self.models.acquire(name)
                claims.callback(lease.release)
                items: Items = lease.model.transcribe(recording.decode(limit), options)
                return items

            async def again(missing: str) -> Items:
                claims.close()
                await self.fetched(missing)
                return await begin()

            items = await begin()
            return Job(items, again, options, held.pop_all(), self._stopping, self.metrics)

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
            (await self.acquire(await self.resolve(name))).release()
        except SpeechError as error:
            log.error("model cannot be loaded: %s", error.message)
            self.readiness = Readiness(False, error.message)
            # What does not exist will not appear; ask the operator, not the hub.
            passing = isinstance(error, ModelUnavailable | QueueFull)
            return False if passing else await _for_ever()
        return True


async def _for_ever() -> bool:
    await asyncio.Event().wait()
    return False
