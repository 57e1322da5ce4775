"""The heart of the service: in which order it asks, and what it gives back when it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from speech_service.contract.engine import Item, Reached
from speech_service.contract.errors import (
    ModelMissing,
    ModelNotFound,
    ModelUnavailable,
    NotAudio,
    QueueFull,
    ShuttingDown,
    SpeechError,
)
from speech_service.contract.settings import Settings
from speech_service.contract.transcript import Options
from speech_service.work import service as service_module
from speech_service.work.service import SpeechService

from ...harness import FakeEngine

MS = 0.001


class Recording:
    """One second of silence that knows whether it was closed."""

    def __init__(self, refusal: SpeechError | None = None) -> None:
        self.refusal = refusal
        self.closed = False
        self.heard = 0

    def probe(self, max_seconds: float) -> float:
        if self.refusal:
            raise self.refusal
        return 1.0

    def decode(self, max_seconds: float) -> Iterator[NDArray[np.int16]]:
        assert not self.closed
        self.heard += 1
        yield np.zeros(16_000, np.int16)

    def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def serving(engine: Any = None, **settings: Any) -> AsyncIterator[SpeechService]:
    """A service that has loaded its default model, unless that cannot be."""
    service = SpeechService(engine or FakeEngine(), Settings(**settings))
    service.start()
    try:
        yield service
    finally:
        await service.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(10 * MS)
    raise AssertionError("it did not happen")


async def test_a_recording_is_closed_once_it_has_been_heard() -> None:
    async with serving() as service:
        recording = Recording()
        transcript = await service.transcribe(recording, None, Options(language="en"))
        assert transcript.text == "one two three four five"
        await until(lambda: recording.closed and not service.turns.running)


@pytest.mark.parametrize(
    ("recording", "model", "error"),
    [
        (Recording(NotAudio("no")), "org/small", NotAudio),
        (Recording(), "nothing", ModelNotFound),
    ],
)
async def test_what_is_refused_is_closed_and_loads_no_model(
    recording: Recording, model: str, error: type[SpeechError]
) -> None:
    engine = FakeEngine()
    async with serving(engine) as service:
        await until(lambda: service.readiness.ready)
        with pytest.raises(error):
            await service.submit(recording, model, Options())
        assert recording.closed
        assert engine.loads == ["tiny"]
        assert (service.turns.running, service.turns.waiting) == (0, 0)


class Lacking(FakeEngine):
    """Needs for French a model that comes when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ended: list[str] = []
        self.arrives = asyncio.Event()
        self.refusal: SpeechError | None = None

    async def fetch(self, model: str, progress: Reached) -> None:
        self.fetched.append(model)
        try:
            await self.arrives.wait()
        finally:
            self.ended.append(model)
        if self.refusal:
            raise self.refusal
        self.models = (*self.models, model)

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Item, None, None]:
        if options.language == "fr":
            block = next(audio)
            if FRENCH not in self.models:
                raise ModelMissing(FRENCH)
            audio = chain([block], audio)
        yield from super().transcribe(audio, options)


FRENCH = "alignment:org/french"


async def test_who_waits_for_a_further_model_has_no_turn_and_begins_anew_when_it_is_here() -> None:
    engine = Lacking()
    async with serving(engine, max_jobs=1) as service:
        waiting, recordings = [], [Recording(), Recording()]
        for recording in recordings:
            job = await service.submit(recording, None, Options(language="fr"))
            waiting.append(asyncio.ensure_future(job.transcript()))
        await until(lambda: service.fetches.waiting == 2)
        assert engine.fetched == [FRENCH]
        async with asyncio.timeout(5):
            assert (await service.transcribe(Recording(), None, Options())).text
        await until(lambda: not service.turns.running)
        assert service.fetches.waiting == 2
        engine.arrives.set()
        for transcript in await asyncio.gather(*waiting):
            assert transcript.text == "one two three four five"
        await until(lambda: all(recording.closed for recording in recordings))
        await until(lambda: not service.turns.running)
        assert [recording.heard for recording in recordings] == [2, 2]
        assert service.fetches.waiting == 0


async def test_a_client_that_leaves_meanwhile_ends_the_fetch_and_gives_all_back() -> None:
    engine = Lacking()
    async with serving(engine) as service:
        recording = Recording()
        transcribing = asyncio.ensure_future(
            service.transcribe(recording, None, Options(language="fr"))
        )
        await until(lambda: engine.fetched == [FRENCH])
        transcribing.cancel()
        await until(lambda: engine.ended == [FRENCH] and recording.closed)
        assert (service.turns.running, service.fetches.waiting) == (0, 0)


async def test_a_further_model_that_cannot_be_had_is_told_and_all_given_back() -> None:
    engine = Lacking()
    engine.refusal = ModelUnavailable("set HF_TOKEN", "hf_token_missing")
    engine.arrives.set()
    async with serving(engine) as service:
        recording = Recording()
        with pytest.raises(ModelUnavailable, match="HF_TOKEN"):
            await service.transcribe(recording, None, Options(language="fr"))
        await until(lambda: recording.closed)
        assert service.turns.running == 0


async def test_too_many_who_wait_for_further_models_are_told_to_come_back() -> None:
    engine = Lacking()
    async with serving(engine, max_jobs=1, max_queued=0) as service:
        await until(lambda: service.readiness.ready)
        recordings = [Recording() for _ in range(3)]
        jobs = []
        for number, recording in enumerate(recordings, 1):
            jobs.append(await service.submit(recording, None, Options(language="fr")))
            await until(lambda: service.fetches.waiting == min(number, 2))  # noqa: B023
        with pytest.raises(QueueFull, match="MAX_QUEUED"):
            await jobs[2].transcript()
        await until(lambda: recordings[2].closed)
        await service.close()
        await until(lambda: all(recording.closed for recording in recordings))
        for job in jobs[:2]:
            with pytest.raises(ShuttingDown):
                await job.transcript()


async def test_a_model_that_cannot_be_loaded_gives_the_turn_back() -> None:
    def loading(name: str) -> None:
        if name != "tiny":
            raise ModelUnavailable("away")

    async with serving(FakeEngine(loading=loading)) as service:
        recording = Recording()
        with pytest.raises(ModelUnavailable):
            await service.submit(recording, "org/small", Options())
        assert recording.closed
        assert service.turns.running == 0


async def test_a_service_that_ends_takes_nothing_more() -> None:
    async with serving() as service:
        await service.close()
        recording = Recording()
        with pytest.raises(ShuttingDown):
            await service.submit(recording, None, Options())
        assert recording.closed


async def test_live_sessions_are_counted_and_limited() -> None:
    async with serving(max_live_sessions=1) as service:
        with service.live_sessions.one():
            with pytest.raises(QueueFull), service.live_sessions.one():
                raise AssertionError("there is no room")
            assert service.live_sessions.taken == 1
        assert service.live_sessions.taken == 0


async def test_a_model_that_may_appear_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_RETRY_SECONDS", (1 * MS,))
    refusals = iter([ModelUnavailable("the hub is away"), ModelUnavailable("still away")])

    def loading(name: str) -> None:
        if refusal := next(refusals, None):
            raise refusal

    async with serving(FakeEngine(loading=loading)) as service:
        await until(lambda: service.readiness.ready)
        assert service.models.loaded == ["tiny"]


async def test_a_model_that_does_not_exist_is_not_asked_for_again() -> None:
    asked: list[str] = []

    def loading(name: str) -> None:
        asked.append(name)
        raise ModelNotFound("the hub has no such model")

    async with serving(FakeEngine(loading=loading)) as service:
        await until(lambda: service.readiness.reason == "the hub has no such model")
        await asyncio.sleep(20 * MS)
        assert asked == ["tiny"]
        assert not service.readiness.ready


async def test_a_defect_while_it_is_prepared_is_told_by_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeEngine):
        def complete(self) -> None:
            raise ImportError("libcudart.so.12")

    async with serving(Broken()) as service:
        await until(lambda: "log says why" in service.readiness.reason)
        assert "libcudart.so.12" in caplog.text
        assert "libcudart" not in service.readiness.reason
