"""A view of the model's inside: what the decoder is asked for, and a gate in front of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ctranslate2 import StorageView  # type: ignore[attr-defined]
from faster_whisper_engine.shared_model import SharedModel


class Watched:
    """A real model that notes what it is asked for, and goes on only when it is let.

    Args:
        model: a `ctranslate2.models.Whisper`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.encoded = 0
        self.decoded: list[tuple[Sequence[Sequence[int]], dict[str, Any]]] = []
        self.let = threading.Event()
        self.let.set()
        self.fails: Callable[[Sequence[Sequence[int]]], bool] = lambda prompts: False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, features: StorageView, to_cpu: bool) -> StorageView:
        self.encoded += 1
        assert self.let.wait(60)
        return self.model.encode(features, to_cpu=to_cpu)

    def generate(self, features: StorageView, prompts: Sequence[Sequence[int]], **rest: Any) -> Any:
        self.decoded.append((prompts, rest))
        assert self.let.wait(60)
        if self.fails(prompts):
            raise RuntimeError("out of memory")
        return self.model.generate(features, prompts, **rest)

    @property
    def batches(self) -> list[int]:
        """How many windows were decoded at once, each time."""
        return [len(prompts) for prompts, _ in self.decoded]


class Patient(SharedModel):
    """Holds the first thread that comes at its second window, until it is let; no other one.

    A recording that is held so has the model neither busy nor asked for.
    """

    def __init__(self, model: Any, start: int) -> None:
        super().__init__(model, start)
        self.held: threading.Thread | None = None
        self.windows = 0
        self.let = threading.Event()

    def encode(self, features: StorageView, to_cpu: bool = False) -> StorageView:
        """See `SharedModel.encode`."""
        self.held = self.held or threading.current_thread()
        if self.held is threading.current_thread():
            self.windows += 1
            assert self.windows == 1 or self.let.wait(60)
        return super().encode(features, to_cpu)
