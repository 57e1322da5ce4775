"""Speech as it is spoken: a stream of samples becomes utterances, each transcribed when it ends.

Rules: an utterance ends at a pause, at the client's wish, when the audio ends, or when it has grown
too long; then it is transcribed once and never changed. Until then it may be transcribed again and
again for those who want to see words early. Where a client ended an utterance is where its audio
had come to at that moment, however late this service gets there. What is buffered is bounded: a
client that sends faster than this service hears is made to wait. Transcriptions of live sessions
queue like all others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..contract.engine import SAMPLE_RATE
from ..contract.errors import InternalError, QueueFull, SpeechError
from ..contract.transcript import Options, Segment, Summary, Transcript
from ..media.audio import Samples
from ..media.utterances import PADDING, Pace, Utterance, utterance
from .service import SpeechService

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""New audio after which the stream is looked at again."""
STALL_SECONDS = 1.5
"""Time without audio that ends an utterance like a pause does."""
BACKLOG_SECONDS = 60.0
"""Audio that may wait before the client is made to wait."""
_BUSY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak, so many seconds into the session."""

    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The utterance ended, so many seconds into the session."""

    at: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said; `final` False means that the same speech will be reported again.

    Times of the segments are seconds from the start of the session.
    """

    transcript: Transcript
    final: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """An utterance could not be transcribed; the session goes on with the next one."""

    error: SpeechError


Event = SpeechStarted | SpeechStopped | Heard | Failed


class LiveSession:
    """One client's stream: `feed` it and iterate over its `events`.

    Args:
        service: does the work.
        model: what the client asked for.
        options: how to transcribe; a language that is not given is that of the first utterance.
        pace: when utterances end.
    """

    def __init__(
        self, service: SpeechService, model: str | None, options: Options, pace: Pace
    ) -> None:
        import numpy as np

        self.configure(model, options, pace)
        self._service = service
        self._samples: NDArray[np.int16] = np.zeros(0, np.int16)
        self._dropped = 0
        self._looked = 0
        self._shown = 0
        self._begun = 0
        self._spoken = 0
        self._commits: deque[int] = deque()
        self._ended = self._speaking = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def configure(self, model: str | None, options: Options, pace: Pace) -> None:
        """Change what holds for all utterances that have not ended yet."""
        self.model = model
        self.pace = pace
        # Silence has been cut away before an utterance is transcribed.
        self.options = replace(options, voice_activity=None)

    @property
    def seconds(self) -> float:
        """How much audio has been received."""
        return self._received / SAMPLE_RATE

    @property
    def uncommitted_seconds(self) -> float:
        """How much audio has been received since the last utterance ended, or was cleared."""
        return (self._received - self._begun) / SAMPLE_RATE

    @property
    def _received(self) -> int:
        return self._dropped + len(self._samples)

    async def feed(self, samples: NDArray[np.int16]) -> None:
        """Add samples at `SAMPLE_RATE`; wait while too many are waiting already.

        What comes after the end is not heard.
        """
        import numpy as np

        if self._ended:
            return
        while len(self._samples) > BACKLOG_SECONDS * SAMPLE_RATE:
            self._room.clear()
            await self._room.wait()
        self._samples = np.concatenate((self._samples, samples))
        self._news.set()

    def end(self) -> None:
        """No more audio comes: what is left is transcribed, then `events` ends."""
        self._ended = True
        self._news.set()

    def commit(self) -> None:
        """End the utterance here, without waiting for a pause."""
        self._begun = self._received
        self._commits.append(self._received)
        self._news.set()

    def clear(self) -> None:
        """Forget what has been received since the last utterance ended."""
        import numpy as np

        self._begun = self._received
        if self._commits:
            # What was committed is still to be heard; what comes behind it keeps its time.
            kept = self._samples[: self._commits[-1] - self._dropped]
            self._samples = np.pad(kept, (0, len(self._samples) - len(kept)))
        else:
            self._drop_to(self._received)
            self._speaking = False

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens, until the audio has ended and all of it was heard."""
        while not self._ended or len(self._samples) or self._commits:
            stalled = await self._stalled()
            self._news.clear()
            new = len(self._samples) - self._looked
            if stalled or self._commits or self._ended or new >= LOOK_SECONDS * SAMPLE_RATE:
                async for event in self._look(stalled):
                    yield event

    async def _stalled(self) -> bool:
        """Wait for news; say whether somebody was speaking and then no more audio came.

        Clients that play a file fall silent on the wire, not in the audio, when it ends.
        """
        patience = STALL_SECONDS if self._speaking and self.pace.endpoints else None
        try:
            async with asyncio.timeout(patience):
                await self._news.wait()
        except TimeoutError:
            return True
        return False

    async def _look(self, stalled: bool) -> AsyncIterator[Event]:
        """Report every utterance that is over, and how the last one stands."""
        limit = int((self.pace.longest + 2 * self.pace.silence + 1.0) * SAMPLE_RATE)
        answered, seen = False, self._dropped
        while len(self._samples) or self._commits:
            origin = self._dropped
            # One that comes while this is at work is looked at in the next round.
            commit = self._commits[0] if self._commits else None
            end = len(self._samples) if commit is None else commit - origin
            view = self._samples[: min(limit, end)]
            seen = origin + len(view)
            whole = len(view) == end
            last = whole and (commit is not None or stalled or self._ended)
            found = await self._utterance(view, origin, last)
            if found is None:
                self._drop_to(seen - (0 if last else PADDING))
            elif not self._speaking:
                self._speaking = True
                yield SpeechStarted((origin + found.start) / SAMPLE_RATE)
            if found is not None and found.over:
                self._speaking = False
                yield SpeechStopped((origin + found.end) / SAMPLE_RATE)
                yield await self._transcribed(view, origin, found)
                self._drop_to(origin + found.resume)
                self._begun = max(self._begun, origin + found.resume)
                answered = True
            elif not whole:
                # The end is in what waits behind this view; only leading quiet can be in the way.
                self._drop_to(origin + (found.start - PADDING if found else 0))
            elif commit is not None:
                self._commits.popleft()
                if not answered:
                    # A client that ends an utterance waits for its text, even if there is none.
                    yield SpeechStopped(commit / SAMPLE_RATE)
                    yield Heard(self._nothing(), final=True)
                answered = False
            else:
                if found is not None and self._worth_showing(found):
                    yield await self._transcribed(view, origin, found)
                break
        # What came in while this was at work has not been looked at.
        self._looked = max(0, seen - self._dropped)
        self._room.set()
        if self.pace.is_over(seen, seen - self._spoken):
            self.end()

    async def _utterance(
        self, view: NDArray[np.int16], origin: int, last: bool
    ) -> Utterance | None:
        """Return the first utterance of a view, and remember where speech was heard last."""
        if not len(view):
            return None
        async with self._service.hearings:
            speech = await asyncio.to_thread(self._service.engine.speech, view)
        if speech:
            self._spoken = max(self._spoken, origin + speech[-1][1])
        return utterance(speech, len(view), self.pace, last)

    def _worth_showing(self, found: Utterance) -> bool:
        """Say whether to transcribe an unfinished utterance: enough is new, nobody else waits."""
        interim = self.pace.interim
        if interim is None or self._service.turns.waiting:
            return False
        return found.end - self._shown >= interim * SAMPLE_RATE

    def _drop_to(self, position: int) -> None:
        """Forget the samples before a position in the session."""
        count = min(max(0, position - self._dropped), len(self._samples))
        self._samples = self._samples[count:]
        self._dropped += count
        self._shown = max(0, self._shown - count)

    async def _transcribed(
        self, view: NDArray[np.int16], origin: int, found: Utterance
    ) -> Heard | Failed:
        """Transcribe one utterance; the times are those of the session."""
        start = max(0, found.start - PADDING)
        self._shown = 0 if found.over else found.end
        while True:
            samples = Samples(view[start : found.resume])
            try:
                heard = await self._service.transcribe(samples, self.model, self.options)
                break
            except QueueFull:
                # Speech cannot be sent again: it waits until there is room.
                await asyncio.sleep(_BUSY_SECONDS)
            except SpeechError as error:
                return Failed(error)
            except Exception:
                # Whatever the decoder trips over, it is this utterance's and nobody else's.
                log.exception("utterance failed")
                return Failed(InternalError())
        if self.options.language is None and found.over and heard.segments:
            self.options = replace(self.options, language=heard.summary.language)
        offset = (origin + start) / SAMPLE_RATE
        segments = tuple(_moved(segment, offset) for segment in heard.segments)
        return Heard(replace(heard, segments=segments), found.over)

    def _nothing(self) -> Transcript:
        language = self.options.language or "en"
        return Transcript(self.options.task, Summary(language, 0.0, 0.0, 0.0), ())


def _moved(segment: Segment, offset: float) -> Segment:
    words = segment.words and tuple(
        replace(word, start=word.start + offset, end=word.end + offset) for word in segment.words
    )
    return replace(
        segment,
        seek=segment.seek + round(offset * 100),
        start=segment.start + offset,
        end=segment.end + offset,
        words=words,
    )
