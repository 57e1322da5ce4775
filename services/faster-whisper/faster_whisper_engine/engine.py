"""faster-whisper behind the protocol of the shared service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from speech_service.engine import SAMPLE_RATE, ModelCard
from speech_service.errors import ModelUnavailable
from speech_service.transcript import Options, Segment, Summary, VoiceActivity, Word
from speech_service.windows import Window, windows

from .catalog import Catalog
from .cpus import available_cpus
from .settings import ComputeType, Device, EngineSettings

if TYPE_CHECKING:
    import faster_whisper.transcribe as library
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_FRAMES_PER_SECOND = 100
_PROMPT_CHARACTERS = 800
"""How much text is carried over a cut; the library keeps the last 223 tokens of it."""


class FasterWhisper:
    """The engine: see `speech_service.engine.Engine`."""

    name = "faster-whisper"

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._catalog = Catalog(settings)
        self.default_model = self._catalog.default

    def prepare(self) -> None:
        """Import the library, a quarter of a second that no request should wait for."""
        import faster_whisper  # noqa: F401

    def resolve(self, model: str | None) -> str:
        """See `Engine.resolve`."""
        return self._catalog.resolve(model)

    def local_models(self) -> list[ModelCard]:
        """See `Engine.local_models`."""
        return self._catalog.local()

    def is_local(self, model: str) -> bool:
        """See `Engine.is_local`."""
        return self._catalog.path(model) is not None

    def fetch(self, model: str, progress: Callable[[int, int], None]) -> None:
        """See `Engine.fetch`."""
        self._catalog.fetch(model, progress)

    def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
        """See `Engine.speech`; Silero's detector, which comes with the library."""
        import numpy as np
        from faster_whisper.vad import VadOptions, get_speech_timestamps

        options = VadOptions(min_silence_duration_ms=100, speech_pad_ms=30)
        found = get_speech_timestamps(samples.astype(np.float32) / 32768.0, options)
        return [(stretch["start"], stretch["end"]) for stretch in found]

    def load(self, model: str) -> WhisperRecognizer:
        """See `Engine.load`."""
        from faster_whisper import WhisperModel

        path = self._catalog.fetch(model, lambda done, total: None)
        if self._settings.offline and not (path / "tokenizer.json").is_file():
            raise ModelUnavailable(
                f"the model {model!r} has no tokenizer.json, and HF_HUB_OFFLINE is set"
            )
        device, compute_type = self._device()
        workers = self._settings.num_workers
        try:
            whisper = WhisperModel(
                str(path),
                device=device,
                device_index=self._settings.device_index,
                compute_type=compute_type,
                cpu_threads=self._settings.cpu_threads or max(1, available_cpus() // workers),
                num_workers=workers,
            )
        except (RuntimeError, ValueError, OSError) as error:
            log.exception("model cannot be loaded", extra={"model": model})
            raise ModelUnavailable(
                f"the model {model!r} cannot be loaded; the log says why"
            ) from error
        return WhisperRecognizer(whisper)

    def _device(self) -> tuple[str, str]:
        """Return the device and the compute type that the settings come down to here."""
        from ctranslate2 import (  # type: ignore[attr-defined]
            get_cuda_device_count,
            get_supported_compute_types,
        )

        device = self._settings.device
        if device is Device.AUTO:
            device = Device.CUDA if get_cuda_device_count() else Device.CPU
        if self._settings.compute_type is not ComputeType.DEFAULT:
            return device, self._settings.compute_type
        if device is Device.CPU:
            return device, ComputeType.INT8
        supported = get_supported_compute_types(device)
        return device, ComputeType.FLOAT16 if "float16" in supported else ComputeType.FLOAT32


class WhisperRecognizer:
    """A loaded model; several threads may use it at once."""

    def __init__(self, whisper: library.WhisperModel) -> None:
        self._whisper = whisper

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Segment | Summary, None, None]:
        """See `Recognizer.transcribe`; a long recording is decoded window by window."""
        if options.language_only:
            yield self._language(next(windows(audio)))
            return
        summary, text, count = Summary("", 0.0, 0.0, 0.0), options.prompt, 0
        for window in windows(audio):
            segments, info = self._window(window, replace(options, prompt=text), summary)
            summary = _joined(summary, window, info)
            for segment in segments:
                found = _segment(segment, window.start, info.duration, count)
                text = ((text or "") + found.text)[-_PROMPT_CHARACTERS:]
                count += 1
                yield found
        yield summary

    def _language(self, window: Window) -> Summary:
        """Detect the language of the first 30 seconds that hold speech."""
        if not self._whisper.model.is_multilingual:
            language, probability = "en", 1.0
        else:
            language, probability, _ = self._whisper.detect_language(
                window.samples, vad_filter=True
            )
        seconds = len(window.samples) / SAMPLE_RATE
        return Summary(language, float(probability), seconds, seconds)

    def _window(
        self, window: Window, options: Options, so_far: Summary
    ) -> tuple[Iterator[library.Segment], library.TranscriptionInfo]:
        """Decode one window; its language is that of the first window with speech."""
        known = so_far.language if so_far.duration_after_vad else None
        vad = options.voice_activity
        segments, info = self._whisper.transcribe(
            window.samples,
            task=options.task,
            language=options.language or known,
            initial_prompt=options.prompt,
            hotwords=options.hotwords,
            temperature=options.temperature or _FALLBACK_TEMPERATURES,
            word_timestamps=options.words,
            without_timestamps=options.without_timestamps,
            vad_filter=vad is not None,
            vad_parameters=_vad_parameters(vad) if vad else None,
        )
        return iter(segments if info.duration_after_vad else ()), info


def _vad_parameters(vad: VoiceActivity) -> dict[str, Any]:
    """Return the library's names for what is set; its defaults hold for the rest."""
    named = {
        "threshold": vad.threshold,
        "min_silence_duration_ms": vad.silence_duration_ms,
        "speech_pad_ms": vad.prefix_padding_ms,
    }
    return {name: value for name, value in named.items() if value is not None}


def _joined(so_far: Summary, window: Window, info: library.TranscriptionInfo) -> Summary:
    """Return the summary of the recording up to the end of a window."""
    first = not so_far.duration_after_vad
    return Summary(
        info.language if first else so_far.language,
        float(info.language_probability) if first else so_far.language_probability,
        window.start + info.duration,
        so_far.duration_after_vad + info.duration_after_vad,
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
