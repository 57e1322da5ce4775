"""Where somebody speaks: silence is cut away before decoding, and times are put back afterwards.

The library can do this by itself (`vad_filter=True`), yet forgets where speech really began: it
keeps 0.4 s of quiet around every stretch, and the model likes to start its first word there. Here
the true limits are remembered, so that no word and no subtitle comes before the voice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speech_service.contract.engine import SAMPLE_RATE
from speech_service.contract.transcript import VoiceActivity

if TYPE_CHECKING:
    import faster_whisper.transcribe as library
    import numpy as np
    from numpy.typing import NDArray

Span = tuple[int, int]

_PADDING_MS = 400
_SLACK_SECONDS = 0.05
"""The detector works in steps of 32 ms; a soft consonant may come just before its verdict."""


def spans(samples: NDArray[np.float32], **options: Any) -> list[Span]:
    """Return the stretches with speech, as first and last sample (Silero VAD, in the library).

    Args:
        samples: mono at `SAMPLE_RATE`.
        options: of the library's `VadOptions`; None leaves one at its default.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    chosen = {name: value for name, value in options.items() if value is not None}
    found = get_speech_timestamps(samples, VadOptions(**chosen))
    return [(stretch["start"], stretch["end"]) for stretch in found]


def padded(speech: list[Span], padding: int, length: int) -> list[Span]:
    """Return the stretches with quiet around them, never more than half of what lies between.

    Args:
        padding: samples on either side.
        length: samples in all.
    """
    widened = []
    for number, (start, end) in enumerate(speech):
        before = start - speech[number - 1][1] if number else 2 * start
        after = speech[number + 1][0] - end if number + 1 < len(speech) else 2 * (length - end)
        widened.append((start - min(padding, before // 2), end + min(padding, after // 2)))
    return widened


@dataclass(frozen=True, slots=True)
class Voice:
    """A recording without its silence.

    `samples` are what is left, `speech` where it was, in samples of the recording.
    """

    samples: NDArray[np.float32]
    speech: list[Span]
    kept: list[Span]

    @classmethod
    def of(cls, samples: NDArray[np.float32], vad: VoiceActivity) -> Voice:
        """Find the speech in a recording."""
        import numpy as np

        speech = spans(
            samples,
            threshold=vad.threshold,
            min_silence_duration_ms=vad.silence_duration_ms,
            speech_pad_ms=0,
        )
        milliseconds = _PADDING_MS if vad.prefix_padding_ms is None else vad.prefix_padding_ms
        kept = padded(speech, milliseconds * SAMPLE_RATE // 1000, len(samples))
        pieces = [samples[start:end] for start, end in kept]
        return cls(np.concatenate(pieces) if pieces else samples[:0], speech, kept)

    def restored(self, segments: Iterator[library.Segment]) -> Iterator[library.Segment]:
        """Put the times of segments back to where they are in the recording."""
        from faster_whisper.transcribe import restore_speech_timestamps

        chunks = [{"start": start, "end": end} for start, end in self.kept]
        for segment in restore_speech_timestamps(segments, chunks, SAMPLE_RATE):
            for word in segment.words or ():
                word.start, word.end = self._tightened(word.start, word.end)
            if segment.words:
                segment.start, segment.end = segment.words[0].start, segment.words[-1].end
            else:
                segment.start, segment.end = self._tightened(segment.start, segment.end)
            yield segment

    def _tightened(self, start: float, end: float) -> tuple[float, float]:
        """Move times that lie in the quiet to the nearest voice; never past each other."""
        starts = [first / SAMPLE_RATE - _SLACK_SECONDS for first, last in self.speech]
        ends = [last / SAMPLE_RATE + _SLACK_SECONDS for first, last in self.speech]
        begins = next((s for s, e in zip(starts, ends, strict=True) if e > start), start)
        stops = next((e for s, e in zip(starts[::-1], ends[::-1], strict=True) if s < end), end)
        tight = max(start, begins), min(end, stops)
        return tight if tight[0] < tight[1] else (start, end)
