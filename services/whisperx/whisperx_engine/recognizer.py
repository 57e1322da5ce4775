"""From samples to who said what when: the three stages in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from faster_whisper_engine.prompts import fitted
from faster_whisper_engine.recognizer import WhisperRecognizer
from speech_service.contract.engine import SAMPLE_RATE, Borrow, Item
from speech_service.contract.transcript import Options, Progress, Segment, Speakers, Stage, Summary

from . import alignment, diarization, libraries
from .pipeline import BatchedWhisper, Stretch
from .sources import NoAlignmentModel
from .watching import Report, watched

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LANGUAGE_SECONDS = 60
"""How much of a recording is searched for the speech that tells its language."""


class WhisperXRecognizer:
    """A loaded Whisper model and its way to the models of the other stages.

    Without words and speakers it does what the plain engine does, and waits for none of the
    libraries that the other stages need.

    Args:
        whisper: the model.
        batched: makes the library's batched pipeline around it; called once, when first needed.
        borrow: claims the models of the other stages, and the libraries.
        find_alignment: raises NoAlignmentModel for a language that nobody can align, ModelMissing
            where its model has to be fetched, and ModelUnavailable where it cannot be had now.
        find_diarization: raises the last two for that model.
    """

    def __init__(
        self,
        whisper: WhisperRecognizer,
        batched: Callable[[], BatchedWhisper],
        borrow: Borrow,
        find_alignment: Callable[[str], object],
        find_diarization: Callable[[], object],
    ) -> None:
        self._whisper = whisper
        self._make_batched = batched
        self._batched: BatchedWhisper | None = None
        self._lock = threading.Lock()
        self._borrow = borrow
        self._find_alignment = find_alignment
        self._find_diarization = find_diarization

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Item, None, None]:
        """See `Recognizer.transcribe`."""
        if not options.words and options.speakers is None:
            yield from self._whisper.transcribe(audio, options)
            return
        if options.speakers:  # a missing token is told before minutes are spent on the text
            self._find_diarization()
        with self._libraries(options):
            voices = self._voices(options.speakers)
            samples = _gathered(audio)
            segments, summary = yield from self._text(samples, options)
            if options.speakers:
                floats = _as_floats(samples)
                naming = partial(self._named, segments, floats, options.speakers, voices)
                segments = yield from watched(Stage.DIARIZE, naming)
                unheard = voices.keys() - {segment.speaker for segment in segments}
                strangers = tuple(f"nobody sounds like {name!r}" for name in sorted(unheard))
                summary = replace(summary, warnings=(*summary.warnings, *strangers))
        yield from segments
        yield summary

    def _libraries(self, options: Options) -> AbstractContextManager[object]:
        """Claim the large libraries if something is going to need them."""
        aligned = options.words and options.task != "translate"
        if aligned or options.speakers:
            return self._borrow(libraries.POOL_NAME)
        return nullcontext()

    def _voices(self, speakers: Speakers | None) -> diarization.Voices:
        """Measure the voices that the client has brought; a useless one is told right away."""
        if speakers is None or not speakers.known:
            return {}
        with self._borrow(diarization.POOL_NAME) as diarizer:
            voices: diarization.Voices = diarizer.voices(speakers.known)
        return voices

    def _text(
        self, samples: NDArray[np.int16], options: Options
    ) -> Generator[Progress, None, tuple[list[Segment], Summary]]:
        """Return segments with word times, aligned wherever that is possible."""
        if not options.words:
            return (yield from self._unaligned(samples, options))
        summary = self._summary(samples, options)
        warning = self._unalignable(summary.language, options)
        if warning:
            chosen = replace(options, language=summary.language)
            segments, summary = yield from self._unaligned(samples, chosen)
            return segments, replace(summary, warnings=(*summary.warnings, warning))
        options, cut = fitted(options, self._whisper.whisper)
        floats = _as_floats(samples)
        decoding = partial(self._decoded, floats, summary.language, options)
        stretches = yield from watched(Stage.TRANSCRIBE, decoding)
        aligning = partial(self._aligned, stretches, floats, summary.language)
        segments = yield from watched(Stage.ALIGN, aligning)
        spoken = sum(stretch.end - stretch.start for stretch in stretches)
        return segments, replace(summary, duration_after_vad=spoken, warnings=cut)

    def _unalignable(self, language: str, options: Options) -> str:
        """Say why words cannot be aligned with the speech; empty if they can."""
        if options.task == "translate":
            reason = "a translation cannot be aligned with the speech"
        else:
            try:
                self._find_alignment(language)
            except NoAlignmentModel as error:
                reason = str(error)
            else:
                return ""
        return f"{reason}; word times are Whisper's own estimate"

    def _unaligned(
        self, samples: NDArray[np.int16], options: Options
    ) -> Generator[Progress, None, tuple[list[Segment], Summary]]:
        """Return segments with the word times that Whisper itself gives."""
        seconds = max(len(samples) / SAMPLE_RATE, 0.001)
        segments: list[Segment] = []
        yield Progress(Stage.TRANSCRIBE, 0.0)
        for item in self._whisper.transcribe(iter((samples,)), replace(options, words=True)):
            if isinstance(item, Summary):
                yield Progress(Stage.TRANSCRIBE, 1.0)
                return segments, item
            if isinstance(item, Segment):
                segments.append(item)
                yield Progress(Stage.TRANSCRIBE, min(item.end / seconds, 0.99))
        raise AssertionError("a recognizer ends with a summary")

    def _summary(self, samples: NDArray[np.int16], options: Options) -> Summary:
        """Return what is known before decoding: the language, and how long the recording is."""
        seconds = len(samples) / SAMPLE_RATE
        if options.language:
            return Summary(options.language, 1.0, seconds, seconds)
        beginning = samples[: _LANGUAGE_SECONDS * SAMPLE_RATE]
        (found,) = self._whisper.transcribe(iter((beginning,)), Options(language_only=True))
        if not isinstance(found, Summary):
            raise AssertionError("a recognizer ends with a summary")
        return replace(found, duration=seconds, duration_after_vad=seconds)

    def _decoded(
        self, samples: NDArray[np.float32], language: str, options: Options, report: Report
    ) -> list[Stretch]:
        with self._lock:
            self._batched = self._batched or self._make_batched()
        return self._batched.transcribe(samples, language, options, report)

    def _aligned(
        self, stretches: list[Stretch], samples: NDArray[np.float32], language: str, report: Report
    ) -> list[Segment]:
        if not stretches:
            return []
        with self._borrow(alignment.pool_name(language)) as aligner:
            segments: list[Segment] = aligner.align(stretches, samples, report)
        return [replace(segment, tokens=self._tokens(segment.text)) for segment in segments]

    def _tokens(self, text: str) -> tuple[int, ...]:
        tokenizer = self._whisper.whisper.hf_tokenizer
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    def _named(
        self,
        segments: list[Segment],
        samples: NDArray[np.float32],
        speakers: Speakers,
        voices: diarization.Voices,
        report: Report,
    ) -> list[Segment]:
        if not segments:
            return []
        with self._borrow(diarization.POOL_NAME) as diarizer:
            named: list[Segment] = diarizer.assign(segments, samples, speakers, report, voices)
        whole = {segment.text for segment in segments}
        # What has been divided has the tokens of its part.
        return [
            part if part.text in whole else replace(part, tokens=self._tokens(part.text))
            for part in named
        ]


def _gathered(audio: Iterator[NDArray[np.int16]]) -> NDArray[np.int16]:
    import numpy as np

    return np.concatenate(list(audio))


def _as_floats(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    import numpy as np

    return samples.astype(np.float32) / 32768.0
