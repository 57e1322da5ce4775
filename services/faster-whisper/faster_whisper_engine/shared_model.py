"""One model for several transcriptions: what they want decoded at the same time is one batch.

Rules: who asks while the model is free is served at once, so a transcription by itself waits for
nothing. Who asks while it is busy queues, first come, first served: the thread whose call is the
oldest makes it as soon as the model is free, together with all waiting calls that fit to it, and
hands out their results. A result does not depend on its company. A batch that fails is made again
one by one, so that nobody learns of an error but who caused it. Nothing is cancelled half-way.

Only `generate` has company: a decoder writes one token after another and is hardly slower with four
texts than with one, while the encoder is as busy with one window as it can be. It queues all the
same, as this is what brings decoders together: whoever's window has been encoded goes to the end of
the queue, behind those that wait for the encoder, and then they all decode side by side.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctranslate2 import StorageView  # type: ignore[attr-defined]
    from ctranslate2.models import (  # type: ignore[attr-defined]
        Whisper,
        WhisperGenerationResult,
    )

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Decoding:
    """One encoded window, its prompt, and how to decode it.

    `place` is where the window's own part of the prompt begins, behind the text that came before.
    """

    window: StorageView
    prompt: Sequence[int]
    place: int
    options: dict[str, Any]

    def fits(self, other: _Decoding) -> bool:
        """Say whether CTranslate2 takes both in one batch: prompts must be built alike."""
        return (
            self.place == other.place
            and len(self.prompt) == len(other.prompt)
            and self.window.shape == other.window.shape
            and self.options == other.options
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One use of the model that a thread waits for; `decoding` is what can have company."""

    alone: Callable[[], Any]
    decoding: _Decoding | None = None
    result: Future[Any] = field(default_factory=Future)

    def fits(self, other: _Call) -> bool:
        """Say whether both can be made at once."""
        if self.decoding is None or other.decoding is None:
            return self is other
        return self.decoding.fits(other.decoding)


class SharedModel:
    """A `ctranslate2.models.Whisper` for many threads, used like the one it is made of.

    Args:
        model: used by nobody else.
        start: id of `<|startoftranscript|>`, with which a window's own part of a prompt begins.
    """

    def __init__(self, model: Whisper, start: int) -> None:
        self._model = model
        self._start = start
        self._free: int = model.num_workers
        self._waiting: list[_Call] = []
        self._moved = threading.Condition()

    def __getattr__(self, name: str) -> Any:
        """Return what computes nothing from the model itself."""
        return getattr(self._model, name)

    @property
    def waiting(self) -> int:
        """How many calls wait for the model to get free."""
        return len(self._waiting)

    def encode(self, features: StorageView, to_cpu: bool = False) -> StorageView:
        """Encode windows, as the library does; the result is on the CPU whatever is asked.

        Batches are put together there. A window is a few megabytes: the way is short beside the
        decoding.
        """
        return self._made(_Call(lambda: self._model.encode(features, to_cpu=True)))

    def detect_language(self, features: StorageView) -> list[list[tuple[str, float]]]:
        """Tell the language of windows, as the library does."""
        found: list[list[tuple[str, float]]]
        found = self._made(_Call(lambda: self._model.detect_language(features)))
        return found

    def align(self, *args: Any, **options: Any) -> list[Any]:
        """Find when the words of windows were spoken, as the library does."""
        found: list[Any] = self._made(_Call(lambda: self._model.align(*args, **options)))
        return found

    def generate(
        self, features: StorageView, prompts: Sequence[Sequence[int]], **options: Any
    ) -> list[WhisperGenerationResult]:
        """Decode windows, as the library does; a single one may find company."""
        decoding = None
        if len(prompts) == 1 and self._start in prompts[0]:
            place = prompts[0].index(self._start)
            decoding = _Decoding(features, prompts[0], place, options)
        results: list[WhisperGenerationResult] = self._made(
            _Call(lambda: self._model.generate(features, prompts, **options), decoding)
        )
        return results

    def _made(self, call: _Call) -> Any:
        """Return the result of a call that this thread or another one makes."""
        with self._moved:
            self._waiting.append(call)
            self._moved.wait_for(lambda: call.result.done() or self._is_next(call))
            if call.result.done():
                return call.result.result()
            self._free -= 1
            batch = [other for other in self._waiting if other.fits(call)]
            self._waiting = [other for other in self._waiting if other not in batch]
            self._moved.notify_all()
        try:
            self._make(batch)
        finally:
            with self._moved:
                self._free += 1
                self._moved.notify_all()
        return call.result.result()

    def _is_next(self, call: _Call) -> bool:
        return self._free > 0 and self._waiting[:1] == [call]

    def _make(self, batch: list[_Call]) -> None:
        """Give each call its result, or the error that it meets by itself."""
        decodings = [call.decoding for call in batch if call.decoding is not None]
        if len(decodings) > 1:
            try:
                results = self._generated(decodings)
            except Exception:
                log.exception("a batch failed", extra={"size": len(batch)})
            else:
                for call, result in zip(batch, results, strict=True):
                    call.result.set_result([result])
                return
        for call in batch:
            try:
                call.result.set_result(call.alone())
            except Exception as error:
                call.result.set_exception(error)

    def _generated(self, decodings: list[_Decoding]) -> list[WhisperGenerationResult]:
        """Decode several windows at once."""
        import numpy as np
        from ctranslate2 import DataType, StorageView  # type: ignore[attr-defined]

        # NumPy knows no bfloat16; float32 holds every type that a model computes in.
        windows = [np.asarray(decoding.window.to(DataType.float32)) for decoding in decodings]
        features = StorageView.from_array(np.concatenate(windows))
        prompts = [decoding.prompt for decoding in decodings]
        results: list[WhisperGenerationResult]
        results = self._model.generate(features, prompts, **decodings[0].options)
        return results
