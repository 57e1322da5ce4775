"""A job: what its thread sends arrives in order, and what it holds is given back at its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import ExitStack

import pytest
from prometheus_client import generate_latest
from speech_service.contract.engine import Item
from speech_service.contract.errors import ModelMissing, ModelUnavailable, ShuttingDown
from speech_service.contract.transcript import Options, Progress, Segment, Stage, Summary
from speech_service.work.job import Job
from speech_service.work.metrics import Metrics

from ...harness import segment

HEARD = Summary("en", 0.9, 4.0, 3.0)
SAID = (segment("one two"), segment("three", 2.0, 1))


class Work:
    """What a recognizer yields, as slowly as the test wants; and a job of it."""

    def __init__(self, *items: Item | Exception) -> None:
        self.items = items
        self.let = threading.Semaphore(100)
        self.closed = threading.Event()
        self.released = asyncio.Event()
        self.stopping = threading.Event()
        self.metrics = Metrics()
        self.asked: list[str] = []
        self.asking = asyncio.Event()
        self.fetching = asyncio.Event()
        self.fetching.set()
        self.refusal: Exception | None = None

    def start(self, ahead: int | None = None) -> Job:
        """Start the job; `ahead` is how many items may come before the test lets more."""
        held = ExitStack()
        held.callback(self.released.set)
        if ahead is not None:
            self.let = threading.Semaphore(ahead)
        return Job(self._items(), self._again, Options(), held, self.stopping, self.metrics)

    async def _again(self, missing: str) -> Generator[Item, None, None]:
        self.asked.append(missing)
        self.asking.set()
        await self.fetching.wait()
        if self.refusal:
            raise self.refusal
        self.items = self.items[1:]
        return self._items()

    def figure(self, line: str) -> bool:
        return line in generate_latest(self.metrics.registry).decode().splitlines()

    def _items(self) -> Generator[Item, None, None]:
        try:
            for item in self.items:
                assert self.let.acquire(timeout=10)
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()


async def test_the_transcript_is_what_was_said() -> None:
    work = Work(*SAID, HEARD)
    transcript = await work.start().transcript()
    assert (transcript.segments, transcript.summary) == (SAID, HEARD)
    await asyncio.wait_for(work.released.wait(), 5)
    assert work.figure("speech_audio_seconds_total 4.0")


async def test_segments_come_while_the_work_goes_on() -> None:
    work = Work(*SAID, HEARD)
    job = work.start(ahead=1)
    segments = aiter(job)
    assert await anext(segments) == SAID[0]
    assert not work.released.is_set(), "its file, its turn and its model are in use"
    work.let.release(2)
    assert [found async for found in segments] == [SAID[1]]
    assert job.result().summary == HEARD


async def test_progress_is_for_those_who_watch() -> None:
    begun, ended = Progress(Stage.ALIGN, 0.0), Progress(Stage.ALIGN, 1.0)
    work = Work(begun, SAID[0], ended, HEARD)
    assert [item async for item in work.start().watch()] == [begun, SAID[0], ended]
    assert work.figure('speech_stage_seconds_count{stage="align"} 1.0')
    assert (await Work(begun, SAID[0], ended, HEARD).start().transcript()).segments == SAID[:1]


async def test_a_cancelled_job_ends_at_its_next_segment_and_gives_all_back() -> None:
    work = Work(*(segment("one", float(number), number) for number in range(50)), HEARD)
    job = work.start(ahead=1)
    assert isinstance(await anext(aiter(job)), Segment)
    job.cancel()
    work.let.release()
    await asyncio.wait_for(work.released.wait(), 5)
    assert work.closed.is_set()
    assert work.figure("speech_jobs_cancelled_total 1.0")
    job.cancel()  # does no harm


async def test_whoever_stops_waiting_for_a_transcript_cancels_its_job() -> None:
    work = Work(*SAID, HEARD)
    waiting = asyncio.ensure_future(work.start(ahead=0).transcript())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    work.let.release()
    await asyncio.wait_for(work.released.wait(), 5)
    assert work.figure("speech_jobs_cancelled_total 1.0")


@pytest.mark.parametrize("error", [ModelUnavailable("the disk is gone"), RuntimeError("no")])
async def test_a_failure_of_the_work_is_raised_where_it_is_waited_for(error: Exception) -> None:
    work = Work(SAID[0], error)
    job = work.start()
    with pytest.raises(type(error), match=str(error)):
        await job.transcript()
    await asyncio.wait_for(work.released.wait(), 5)
    assert work.closed.is_set()


async def test_a_job_that_the_end_of_the_service_stopped_has_no_result() -> None:
    work = Work(*SAID, HEARD)
    work.stopping.set()
    with pytest.raises(ShuttingDown):
        await work.start().transcript()


async def test_the_end_of_a_recording_is_kept_though_nobody_waits_any_more() -> None:
    work = Work(HEARD)
    job = work.start(ahead=0)
    job.cancel()
    work.let.release()
    await asyncio.wait_for(work.released.wait(), 5)
    assert work.figure("speech_jobs_cancelled_total 0.0")
    assert work.figure("speech_audio_seconds_total 4.0")


MISSING = ModelMissing("alignment:org/french")


async def test_a_job_that_lacks_a_model_begins_anew_when_that_is_here() -> None:
    work = Work(MISSING, ModelMissing("diarization:org/voices"), *SAID, HEARD)
    transcript = await work.start().transcript()
    assert (transcript.segments, transcript.summary) == (SAID, HEARD)
    assert work.asked == [MISSING.name, "diarization:org/voices"]
    await asyncio.wait_for(work.released.wait(), 5)


@pytest.mark.parametrize(
    "items", [(MISSING, MISSING, HEARD), (SAID[0], MISSING, HEARD)], ids=["twice", "late"]
)
async def test_a_model_that_is_missing_all_the_same_is_an_error(
    items: tuple[Item | Exception, ...],
) -> None:
    work = Work(*items)
    with pytest.raises(ModelUnavailable, match="try again"):
        await work.start().transcript()
    assert work.asked in ([MISSING.name], [])
    await asyncio.wait_for(work.released.wait(), 5)


async def test_a_model_that_cannot_be_had_ends_the_job_with_the_reason() -> None:
    work = Work(MISSING, HEARD)
    work.refusal = ModelUnavailable("the hub is away", "hub_unreachable")
    with pytest.raises(ModelUnavailable, match="the hub is away"):
        await work.start().transcript()
    await asyncio.wait_for(work.released.wait(), 5)


async def test_whoever_leaves_while_a_model_is_fetched_ends_the_waiting() -> None:
    work = Work(MISSING, *SAID, HEARD)
    work.fetching.clear()
    job = work.start()
    waiting = asyncio.ensure_future(job.transcript())
    await asyncio.wait_for(work.asking.wait(), 5)
    assert not work.released.is_set()
    waiting.cancel()
    await asyncio.wait_for(work.released.wait(), 5)
    assert work.figure("speech_jobs_cancelled_total 1.0")
    assert job.segments == []


@pytest.mark.parametrize("end", ["cancelled", "stopping"])
async def test_a_job_that_nobody_wants_any_more_waits_for_no_model(end: str) -> None:
    work = Work(MISSING, HEARD)
    work.fetching.clear()
    job = work.start(ahead=0)
    if end == "cancelled":
        job.cancel()
    else:
        work.stopping.set()
    work.let.release()
    await asyncio.wait_for(work.released.wait(), 5)
    assert work.asked == []
    with pytest.raises(ShuttingDown):
        await job.transcript()
