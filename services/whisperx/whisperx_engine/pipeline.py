"""The first stage: WhisperX's batched recognition, around a model that is loaded already."""

from __future__ import annotations

import copy
import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from faster_whisper_engine import prompts
from speech_service.contract.engine import SAMPLE_RATE
from speech_service.contract.transcript import Options

from .memory import OutOfMemory, fitting, free_bytes, out_of_memory, smaller
from .watching import Report

if TYPE_CHECKING:
    import faster_whisper
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of speech of at most 30 s and its text; `start` and `end` in seconds."""

    start: float
    end: float
    text: str
    avg_logprob: float


class BatchedWhisper:
    """Decodes stretches of speech many at a time; one recording at a time.

    The library's pipeline keeps the language and the options of a call in itself, so calls are
    locked out of each other.

    Args:
        whisper: loaded; its weights are shared, not loaded again.
        device: of the detector of speech, as torch names it.
        batch_size: at most so many stretches at once; 0 adapts to the memory there is.
        model_bytes: size of the weights on disk.
    """

    def __init__(
        self, whisper: faster_whisper.WhisperModel, device: str, batch_size: int, model_bytes: int
    ) -> None:
        from whisperx.asr import WhisperModel, load_model

        batched = copy.copy(whisper)
        # The library's class adds methods to this one and no state.
        batched.__class__ = prompts.sharing(WhisperModel)
        name, _, index = device.partition(":")
        self._pipeline: Any = load_model("", name, device_index=int(index or 0), model=batched)
        self._options = self._pipeline.options
        self._device = device
        self._batch_size = batch_size
        self._model_bytes = model_bytes
        self._lock = threading.Lock()

    def transcribe(
        self, samples: NDArray[np.float32], language: str, options: Options, report: Report
    ) -> list[Stretch]:
        """Return the stretches of a recording that hold speech, with their texts.

        Args:
            samples: mono at `SAMPLE_RATE`.
            language: ISO 639-1 code.
            options: task, prompt, hotwords (as `prompts.fitted` leaves them) and batch size are
                used.
            report: told how many of the stretches are done.
        Raises:
            OutOfMemory: a single stretch is too much.
        """
        chosen = replace(self._options, initial_prompt=options.prompt, hotwords=options.hotwords)
        for size in smaller(options.batch_size or self._size()):
            try:
                with self._lock:
                    self._pipeline.options = chosen
                    found = self._pipeline.transcribe(
                        samples,
                        batch_size=size,
                        language=language,
                        task=options.task,
                        progress_callback=report,
                    )
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                log.warning("out of memory", extra={"batch_size": size})
            else:
                return [_stretch(segment) for segment in found["segments"]]
        seconds = len(samples) / SAMPLE_RATE
        raise OutOfMemory(f"{seconds:.0f} seconds of audio need more memory than there is")

    def _size(self) -> int:
        return self._batch_size or fitting(free_bytes(self._device), self._model_bytes)


def _stretch(found: dict[str, Any]) -> Stretch:
    return Stretch(
        float(found["start"]), float(found["end"]), found["text"], float(found["avg_logprob"])
    )
