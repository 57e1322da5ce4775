"""A live session without a wire: fed by hand, heard as it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray
from speech_service.contract.errors import ModelUnavailable, QueueFull
from speech_service.contract.settings import Settings
from speech_service.contract.transcript import Options, VoiceActivity
from speech_service.media.utterances import Pace
from speech_service.work import live
from speech_service.work.live import Failed, Heard, LiveSession, SpeechStarted, SpeechStopped
from speech_service.work.service import SpeechService

from ...harness import FakeEngine, segment
from ...spoken import Recorder, sound

MS = 0.001


@pytest.fixture
async def service() -> AsyncIterator[SpeechService]:
    service = SpeechService(Recorder(), Settings())
    yield service
    await service.close()


def session(service: SpeechService, pace: Pace | None = None) -> LiveSession:
    return LiveSession(service, None, Options(), pace or Pace())


async def everything(session: LiveSession) -> list[live.Event]:
    """All that happens once no more audio comes."""
    session.end()
    async with asyncio.timeout(10):
        return [event async for event in session.events()]


async def test_each_pause_ends_an_utterance(service: SpeechService) -> None:
    talk = session(service)
    await talk.feed(sound(1.0, 1.0, 1.5))
    assert talk.seconds == 3.5
    events = await everything(talk)
    kinds = [type(event) for event in events]
    assert kinds == [SpeechStarted, SpeechStopped, Heard] * 2
    started = [event.at for event in events if isinstance(event, SpeechStarted)]
    assert started == [pytest.approx(0.0, abs=0.05), pytest.approx(2.0, abs=0.05)]
    heard = [event for event in events if isinstance(event, Heard)]
    assert [event.transcript.text for event in heard] == ["utterance0", "utterance1"]
    assert all(event.final for event in heard)
    # The second word is 0.3 s behind the 0.3 s of quiet that are kept before it.
    assert heard[1].transcript.segments[0].start == pytest.approx(2.0, abs=0.05)


async def test_the_language_of_the_first_utterance_is_kept(service: SpeechService) -> None:
    talk = LiveSession(service, None, Options(voice_activity=VoiceActivity()), Pace())
    await talk.feed(sound(1.0, 1.0, 1.0))
    await everything(talk)
    engine = service.engine
    assert isinstance(engine, FakeEngine)
    assert [asked.language for asked in engine.asked] == [None, "fr"]
    assert {asked.voice_activity for asked in engine.asked} == {None}, "silence is cut already"


async def test_silence_is_heard_as_nothing(service: SpeechService) -> None:
    talk = session(service)
    await talk.feed(sound(0.0, 3.0))
    assert await everything(talk) == []


async def test_a_client_may_end_an_utterance_itself(service: SpeechService) -> None:
    talk = session(service, Pace(longest=60.0, endpoints=False))
    await talk.feed(sound(1.0, 2.0, 1.0))
    talk.commit()
    events = talk.events()
    found = [type(await anext(events)) for _ in range(3)]
    assert found == [SpeechStarted, SpeechStopped, Heard]
    talk.commit()
    assert isinstance(await anext(events), SpeechStopped)
    nothing = await anext(events)
    assert isinstance(nothing, Heard) and nothing.transcript.text == ""
    talk.end()
    assert [event async for event in events] == []


async def test_what_is_cleared_is_not_heard(service: SpeechService) -> None:
    talk = session(service)
    await talk.feed(sound(1.0))
    talk.clear()
    assert await everything(talk) == []
    assert talk.seconds == 1.0, "it was received all the same"


async def test_each_commit_ends_the_utterance_where_the_audio_had_come_to(
    service: SpeechService,
) -> None:
    talk = session(service, Pace(longest=60.0, endpoints=False))
    await talk.feed(sound(1.0))
    assert talk.uncommitted_seconds == 1.0
    talk.commit()
    assert talk.uncommitted_seconds == 0.0
    await talk.feed(sound(2.0))
    talk.commit()
    await talk.feed(sound(0.5))
    assert talk.uncommitted_seconds == 0.5
    heard = [event for event in await everything(talk) if isinstance(event, Heard)]
    assert [event.transcript.summary.duration for event in heard] == [1.0, 2.0, 0.5]


async def test_a_commit_that_comes_while_the_audio_is_looked_at_is_not_taken_for_silence() -> None:
    talks: list[LiveSession] = []
    loop = asyncio.get_running_loop()

    class Slow(Recorder):
        def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
            if talks:
                loop.call_soon_threadsafe(talks.pop().commit)
                time.sleep(0.05)
            return super().speech(samples)

    service = SpeechService(Slow(), Settings())
    talk = session(service, Pace(longest=60.0, endpoints=False))
    talks.append(talk)
    await talk.feed(sound(1.0))
    events = talk.events()
    async with asyncio.timeout(10):
        while not isinstance(event := await anext(events), Heard):
            pass
    assert event.transcript.text == "utterance0"
    await service.close()


async def test_what_was_committed_is_heard_though_the_rest_is_cleared(
    service: SpeechService,
) -> None:
    talk = session(service, Pace(longest=60.0, endpoints=False))
    await talk.feed(sound(1.0))
    talk.commit()
    await talk.feed(sound(3.0))
    talk.clear()
    assert talk.uncommitted_seconds == 0.0
    await talk.feed(sound(0.5))
    heard = [event for event in await everything(talk) if isinstance(event, Heard)]
    assert [event.transcript.text for event in heard] == ["utterance0", "utterance1"]
    assert heard[0].transcript.summary.duration == 1.0
    assert heard[1].transcript.summary.duration == pytest.approx(0.8, abs=0.05)
    assert heard[1].transcript.segments[0].start == pytest.approx(4.0, abs=0.05)


async def test_an_utterance_that_ended_by_itself_is_not_there_to_be_committed(
    service: SpeechService,
) -> None:
    talk = session(service)
    await talk.feed(sound(1.0, 1.0))
    events = talk.events()
    while not isinstance(await anext(events), Heard):
        pass
    async with asyncio.timeout(5):
        talk.end()
        assert [event async for event in events] == []
    assert talk.uncommitted_seconds == pytest.approx(0.7, abs=0.05)


async def test_a_long_pause_that_ends_nothing_does_not_hang_the_session(
    service: SpeechService,
) -> None:
    talk = session(service, Pace(longest=2.0, endpoints=False))
    await talk.feed(sound(1.0, 9.0, 1.0))
    heard = [event for event in await everything(talk) if isinstance(event, Heard)]
    assert [event.transcript.text for event in heard] == ["utterance0", "utterance1"]


async def test_silence_ends_a_session_where_the_protocol_says_so(service: SpeechService) -> None:
    talk = session(service, Pace(inactivity=1.0, window=2.0))
    await talk.feed(sound(1.0, 1.5))
    async with asyncio.timeout(10):
        kinds = [type(event) async for event in talk.events()]
    assert kinds == [SpeechStarted, SpeechStopped, Heard]
    await talk.feed(sound(1.0))
    assert talk.seconds == 2.5, "nobody listens any more"


async def test_who_sends_faster_than_is_heard_waits(
    service: SpeechService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BACKLOG_SECONDS", 1.0)
    talk = session(service)
    await talk.feed(sound(1.0, 1.0))
    waiting = asyncio.ensure_future(talk.feed(sound(0.5)))
    await asyncio.sleep(10 * MS)
    assert not waiting.done()
    events = talk.events()
    async with asyncio.timeout(5):
        while not waiting.done():
            await anext(events)
    assert talk.seconds == 2.5


async def test_a_full_queue_is_waited_for_as_speech_cannot_be_sent_again(
    service: SpeechService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_BUSY_SECONDS", 1 * MS)
    refusals = iter([QueueFull("later", 1.0), QueueFull("later", 1.0)])
    take = service.turns.take

    async def taken() -> object:
        if refusal := next(refusals, None):
            raise refusal
        return await take()

    monkeypatch.setattr(service.turns, "take", taken)
    talk = session(service)
    await talk.feed(sound(1.0))
    *_, last = await everything(talk)
    assert isinstance(last, Heard) and last.transcript.text == "utterance0"


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ModelUnavailable("the disk is gone"), "the disk is gone"),
        (RuntimeError("bad token"), "the service failed; its log says why"),
    ],
    ids=["foreseen", "unforeseen"],
)
async def test_an_utterance_that_fails_does_not_end_the_session(
    failure: Exception, message: str
) -> None:
    failures = iter([failure, None])

    def pace() -> None:
        if error := next(failures):
            raise error

    service = SpeechService(FakeEngine(says=(segment("two"),), pace=pace), Settings())
    talk = session(service)
    await talk.feed(sound(1.0, 1.0, 1.0))
    told = [event for event in await everything(talk) if isinstance(event, Failed | Heard)]
    assert isinstance(told[0], Failed) and told[0].error.message == message
    assert isinstance(told[1], Heard) and told[1].transcript.text == "two"
    await service.close()
