"""A loaded Whisper model: samples in, segments out, window by window."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from speech_service.contract.engine import SAMPLE_RATE, Item
from speech_service.contract.transcript import Options, Segment, Summary, Word
from speech_service.media.windows import Window, windows

from .prompts import fitted
from .voice import Voice

if TYPE_CHECKING:
    import faster_whisper.transcribe as library
    import numpy as np
    from numpy.typing import NDArray

_FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_FRAMES_PER_SECOND = 100
_PROMPT_CHARACTERS = 800
"""How much text is carried over a cut; the library keeps the last 223 tokens of it."""
_LANGUAGE_SECONDS = 60.0
"""How much of a recording is searched for the half minute of speech that tells its language."""
_FALLBACK_LANGUAGE = "en"
"""What silence is said to be in: the answer has to name a language."""


class WhisperRecognizer:
    """A loaded model; several threads may use it at once."""

    def __init__(self, whisper: library.WhisperModel) -> None:
        self.whisper = whisper

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Item, None, None]:
        """See `Recognizer.transcribe`."""
        if options.language_only:
            yield self._language(next(windows(audio, _LANGUAGE_SECONDS)))
            return
        options, cut = fitted(options, self.whisper)
        so_far = Summary("", 0.0, 0.0, 0.0, cut)
        text, count = options.prompt, 0
        for window in windows(audio):
            vad = options.voice_activity
            voice = Voice.of(window.samples, vad) if vad else None
            samples = window.samples if voice is None else voice.samples
            length = len(window.samples) / SAMPLE_RATE
            so_far = replace(so_far, duration=window.start + length)
            if not len(samples):
                continue
            segments, info = self._decoded(samples, replace(options, prompt=text), so_far.language)
            so_far = _joined(so_far, info)
            for segment in voice.restored(segments) if voice else segments:
                found = _segment(segment, window.start, length, count)
                text = ((text or "") + found.text)[-_PROMPT_CHARACTERS:]
                count += 1
                yield found
        yield replace(so_far, language=so_far.language or options.language or _FALLBACK_LANGUAGE)

    def _decoded(
        self, samples: NDArray[np.float32], options: Options, language: str
    ) -> tuple[Iterator[library.Segment], library.TranscriptionInfo]:
        """Decode one window, in the language asked for or that of the windows before."""
        segments, info = self.whisper.transcribe(
            samples,
            task=options.task,
            language=options.language or language or None,
            initial_prompt=options.prompt,
            hotwords=options.hotwords,
            temperature=options.temperature or _FALLBACK_TEMPERATURES,
            word_timestamps=options.words,
            without_timestamps=options.without_timestamps,
        )
        return iter(segments), info

    def _language(self, window: Window) -> Summary:
        """Detect the language of the first 30 seconds that hold speech."""
        if not self.whisper.model.is_multilingual:
            language, probability = "en", 1.0
        else:
            language, probability, _ = self.whisper.detect_language(window.samples, vad_filter=True)
        seconds = len(window.samples) / SAMPLE_RATE
        return Summary(language, float(probability), seconds, seconds)


def _joined(so_far: Summary, info: library.TranscriptionInfo) -> Summary:
    """Return a summary that knows of one more window; the first one decides the language."""
    after_vad = so_far.duration_after_vad + info.duration
    if so_far.language:
        return replace(so_far, duration_after_vad=after_vad)
    probability = float(info.language_probability)
    return replace(
        so_far,
        language=info.language,
        language_probability=probability,
        duration_after_vad=after_vad,
    )


def _segment(found: library.Segment, offset: float, length: float, number: int) -> Segment:
    """Return a segment of the library as one of the recording.

    Args:
        offset: second at which the window starts.
        length: seconds of the window; the model hears 30 s always, and may place words in the
            silence that pads the last of them.
        number: of the segment in the recording.
    """

    def moved(seconds: float) -> float:
        return offset + min(max(float(seconds), 0.0), length)

    words = found.words or ()
    return Segment(
        id=number,
        seek=found.seek + round(offset * _FRAMES_PER_SECOND),
        start=moved(found.start),
        end=moved(found.end),
        text=found.text,
        tokens=tuple(found.tokens),
        temperature=found.temperature or 0.0,
        avg_logprob=float(found.avg_logprob),
        compression_ratio=float(found.compression_ratio),
        no_speech_prob=float(found.no_speech_prob),
        words=tuple(
            Word(moved(word.start), moved(word.end), word.word, float(word.probability))
            for word in words
        )
        if found.words is not None
        else None,
    )
