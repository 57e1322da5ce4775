"""The second stage: when each word was spoken, by forced alignment of its letters (wav2vec 2.0)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeGuard

from speech_service.contract.transcript import Segment, Word

from .pipeline import Stretch
from .watching import Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WITHOUT_SPACES = frozenset({"ja", "zh"})
"""Languages whose every character the library takes for a word."""


def pool_name(language: str) -> str:
    """Return what the model of a language is called among the models in memory.

    No model that a client may ask for has a colon in its name.
    """
    return f"alignment:{language}"


class Aligner:
    """A loaded alignment model; several threads may use it at once.

    Args:
        model: as `whisperx.load_align_model` returns it.
        metadata: the same.
        device: as torch names it.
    """

    def __init__(self, model: Any, metadata: dict[str, Any], device: str) -> None:
        self._model = model
        self._metadata = metadata
        self._device = device

    def align(
        self, stretches: Sequence[Stretch], samples: NDArray[np.float32], report: Report
    ) -> list[Segment]:
        """Return the sentences of the stretches, with the times of all their words.

        Words in which no letter is known to the model get times between their neighbours', and no
        probability.
        """
        from whisperx.alignment import align

        # A stretch without letters has nothing to align, and one without text stops the library.
        spoken = [stretch for stretch in stretches if stretch.text.strip()]
        if not spoken:
            return []
        found = align(
            [_as_dict(stretch) for stretch in spoken],
            self._model,
            self._metadata,
            samples,
            self._device,
            progress_callback=report,
        )
        mark = "" if self._metadata["language"] in _WITHOUT_SPACES else " "
        return [
            _segment(number, sentence, mark) for number, sentence in enumerate(found["segments"])
        ]


def _as_dict(stretch: Stretch) -> dict[str, Any]:
    return {
        "start": stretch.start,
        "end": stretch.end,
        "text": stretch.text,
        "avg_logprob": stretch.avg_logprob,
    }


def _segment(number: int, sentence: dict[str, Any], mark: str) -> Segment:
    """Return a sentence of the library; `mark` is what stands before each word."""
    words = _timed(sentence["words"], float(sentence["start"]), float(sentence["end"]), mark)
    return Segment(
        id=number,
        seek=0,
        start=words[0].start if words else float(sentence["start"]),
        end=words[-1].end if words else float(sentence["end"]),
        text=mark + sentence["text"].strip(),
        avg_logprob=float(sentence.get("avg_logprob", 0.0)),
        words=tuple(words),
    )


def _timed(words: Iterable[dict[str, Any]], start: float, end: float, mark: str) -> list[Word]:
    """Return words that all have times: a gap is shared by those whose times are not known."""
    timed: list[Word] = []
    unknown: list[str] = []
    for word in chain(words, [{"word": "", "start": end, "end": end}]):
        if not _finite(word.get("start")) or not _finite(word.get("end")):
            unknown.append(word["word"])
            continue
        earliest = timed[-1].end if timed else start
        timed += _spread(unknown, min(earliest, word["start"]), word["start"], mark)
        unknown = []
        if word["word"]:
            heard = word.get("score")
            probability = float(heard) if _finite(heard) else None
            timed.append(
                Word(float(word["start"]), float(word["end"]), mark + word["word"], probability)
            )
    return timed


def _spread(words: list[str], start: float, end: float, mark: str) -> list[Word]:
    each = (end - start) / max(1, len(words))
    return [
        Word(start + number * each, start + (number + 1) * each, mark + word, None)
        for number, word in enumerate(words)
    ]


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
