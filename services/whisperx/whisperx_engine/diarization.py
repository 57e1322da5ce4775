"""The third stage: who speaks when (pyannote.audio), and whose each word is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from speech_service.contract.transcript import Segment, Speakers, Word

from .watching import Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


POOL_NAME = "diarization:"
"""What the model is called among those in memory; nothing that a client may ask for."""


class Diarizer:
    """A loaded diarization pipeline; one recording at a time.

    Args:
        pipeline: `whisperx.diarize.DiarizationPipeline`.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()

    def assign(
        self,
        segments: Sequence[Segment],
        samples: NDArray[np.float32],
        speakers: Speakers,
        report: Report,
    ) -> list[Segment]:
        """Return the segments and their words with the names of who speaks them.

        Names are `SPEAKER_00` and so on. A segment is named after whoever speaks most of it, and
        what lies between two turns after the nearest.

        Args:
            segments: at least one.
            samples: mono at 16 kHz.
            speakers: how many there are.
        """
        from whisperx.diarize import assign_word_speakers

        with self._lock:
            turns = self._pipeline(
                samples,
                num_speakers=speakers.exactly,
                min_speakers=speakers.at_least,
                max_speakers=speakers.at_most,
                progress_callback=report,
            )
        plain = {"segments": [_as_dict(segment) for segment in segments]}
        named = assign_word_speakers(turns, plain, fill_nearest=True)["segments"]
        return [_named(*pair) for pair in zip(segments, named, strict=True)]


def _as_dict(segment: Segment) -> dict[str, Any]:
    words = [{"start": word.start, "end": word.end} for word in segment.words or ()]
    return {"start": segment.start, "end": segment.end, "words": words}


def _named(segment: Segment, found: dict[str, Any]) -> Segment:
    words: tuple[Word, ...] | None = segment.words and tuple(
        replace(word, speaker=other.get("speaker"))
        for word, other in zip(segment.words, found["words"], strict=True)
    )
    return replace(segment, words=words, speaker=found.get("speaker"))
