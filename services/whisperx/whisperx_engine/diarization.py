"""The third stage: who speaks when (pyannote.audio); `speakers` tells whose each word is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from speech_service.contract.transcript import Segment, Speakers

from .speakers import Turn, Turns, attributed, numbered
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
        """Return segments that one speaker says each, by the rules of `speakers`.

        Names are `SPEAKER_00` and so on, in the order in which they speak; without one where nobody
        is heard in the whole recording.

        Args:
            segments: at least one.
            samples: mono at 16 kHz.
            speakers: how many there are.
        """
        with self._lock:
            found = self._pipeline(
                samples,
                num_speakers=speakers.exactly,
                min_speakers=speakers.at_least,
                max_speakers=speakers.at_most,
                progress_callback=report,
            )
        columns = (found["start"], found["end"], found["speaker"])
        turns = [Turn(*turn) for turn in zip(*columns, strict=True)]
        if not turns:
            return list(segments)
        return numbered(list(attributed(segments, Turns(turns))), {})
