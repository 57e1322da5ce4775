"""The third stage: who speaks when (pyannote.audio); `speakers` tells whose each word is."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from speech_service.contract.errors import InvalidRequest
from speech_service.contract.transcript import KnownSpeaker, Segment, Speakers

from .speakers import Turn, Turns, attributed, numbered, recognized
from .watching import Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Voices: TypeAlias = Mapping[str, Sequence[float]]
"""Embeddings of voices by the names of those they belong to."""

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
        voices: Voices | None = None,
    ) -> list[Segment]:
        """Return segments that one speaker says each, by the rules of `speakers`.

        Names are `SPEAKER_00` and so on, in the order in which they speak; without one where nobody
        is heard in the whole recording.

        Args:
            segments: at least one.
            samples: mono at 16 kHz.
            speakers: how many there are.
            voices: of those who have names, as `voices` returns them.
        """
        with self._lock:
            found = self._pipeline(
                samples,
                num_speakers=speakers.exactly,
                min_speakers=speakers.at_least,
                max_speakers=speakers.at_most,
                progress_callback=report,
                return_embeddings=bool(voices),
            )
        known: dict[str, str] = {}
        if voices:
            found, heard = found
            known = recognized(voices, heard or {})
        columns = (found["start"], found["end"], found["speaker"])
        turns = [Turn(*turn) for turn in zip(*columns, strict=True)]
        if not turns:
            return list(segments)
        return numbered(list(attributed(segments, Turns(turns))), known)

    def voices(self, known: Iterable[KnownSpeaker]) -> Voices:
        """Return what the voices of these people are like, in the pipeline's own measure.

        Raises:
            InvalidRequest: nobody speaks in one of the recordings, or the pipeline has no measure.
        """
        return {each.name: self._voice(each) for each in known}

    def _voice(self, known: KnownSpeaker) -> Sequence[float]:
        import numpy as np

        samples = np.frombuffer(known.samples, "<i2").astype(np.float32) / 32768.0
        with self._lock:
            _, heard = self._pipeline(samples, num_speakers=1, return_embeddings=True)
        embeddings: list[Sequence[float]] = list((heard or {}).values())
        if heard is None:
            reason = "the diarization model of this service cannot compare voices"
        elif not embeddings or not np.isfinite(embeddings[0]).all():
            reason = f"nobody is heard to speak in the recording of {known.name!r}"
        else:
            return embeddings[0]
        raise InvalidRequest(f"known_speaker_references: {reason}", "known_speaker_references")
