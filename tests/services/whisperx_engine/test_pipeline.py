"""The first stage: as many stretches at once as fit, and the options of each call its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from speech_service.contract.transcript import Options
from whisperx_engine import pipeline as pipeline_module
from whisperx_engine.memory import OutOfMemory
from whisperx_engine.pipeline import BatchedWhisper, Stretch

from .stand_ins import stand_in

SAMPLES = np.zeros(3 * 16_000, np.float32)


@dataclass(frozen=True)
class Defaults:
    """The options that the library starts from."""

    beam_size: int = 5
    initial_prompt: str | None = None
    hotwords: str | None = None


@dataclass
class Library:
    """The library's pipeline; `fits` is how many stretches it has memory for."""

    fits: int = 100
    options: Any = field(default_factory=Defaults)
    asked: list[tuple[int, Any, str, str]] = field(default_factory=list)
    loaded: tuple[Any, ...] = ()

    def load(self, name: str, device: str, device_index: int, model: Any) -> Library:
        self.loaded = (name, device, device_index, type(model).__name__)
        return self

    def transcribe(
        self, samples: Any, batch_size: int, language: str, task: str, progress_callback: Any
    ) -> Any:
        self.asked.append((batch_size, self.options, language, task))
        if self.fits == 0:
            raise RuntimeError("invalid device ordinal")
        if batch_size > self.fits:
            raise RuntimeError("CUDA failed with error out of memory")
        progress_callback(100.0)
        return {"segments": [{"start": 0, "end": 2.5, "text": " Hi", "avg_logprob": -0.5}]}


class Loaded:
    """A model as the plain engine has loaded it."""


class Theirs(Loaded):
    """The library's own class of it."""


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    stand_in(monkeypatch, "whisperx.asr", WhisperModel=Theirs, load_model=library.load)
    return library


def batched(device: str = "cpu", size: int = 8) -> BatchedWhisper:
    return BatchedWhisper(Loaded(), device, size, 1000)  # type: ignore[arg-type]


def heard(pipeline: BatchedWhisper, **options: Any) -> list[Stretch]:
    reports: list[float] = []
    found = pipeline.transcribe(SAMPLES, "en", Options(**options), reports.append)
    assert reports == [100.0]
    return found


@pytest.mark.parametrize(
    ("device", "name", "index"), [("cpu", "cpu", 0), ("cuda:1", "cuda", 1), ("cuda", "cuda", 0)]
)
def test_the_weights_are_shared_and_not_loaded_again(
    device: str, name: str, index: int, library: Library
) -> None:
    whisper = Loaded()
    BatchedWhisper(whisper, device, 8, 1000)  # type: ignore[arg-type]
    assert library.loaded == ("", name, index, "Theirs")
    assert type(whisper) is Loaded, "the plain engine goes on with its own"


def test_stretches_are_what_the_library_found(library: Library) -> None:
    assert heard(batched()) == [Stretch(0.0, 2.5, " Hi", -0.5)]


def test_prompt_and_hotwords_are_those_of_the_call_and_of_no_other(library: Library) -> None:
    pipeline = batched()
    heard(pipeline, prompt="Hello", hotwords="Zebra", task="translate")
    heard(pipeline)
    (size, first, language, task), (_, second, _, _) = library.asked
    assert (size, language, task) == (8, "en", "translate")
    assert first == Defaults(5, "Hello", "Zebra")
    assert second == Defaults()


def test_what_does_not_fit_is_tried_by_halves(library: Library) -> None:
    library.fits = 2
    heard(batched(size=8))
    heard(batched(size=8), batch_size=3)
    assert [asked[0] for asked in library.asked] == [8, 4, 2, 3, 1]


def test_where_not_even_one_fits_the_length_is_named(library: Library) -> None:
    library.fits = -1
    with pytest.raises(OutOfMemory, match="3 seconds of audio need more memory"):
        heard(batched(size=2))
    assert [asked[0] for asked in library.asked] == [2, 1]


def test_another_failure_is_no_lack_of_memory(library: Library) -> None:
    library.fits = 0
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        heard(batched())
    assert len(library.asked) == 1


def test_without_a_size_the_free_memory_decides(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = SimpleNamespace(asked=[])

    def free_bytes(device: str) -> int:
        sizes.asked.append(device)
        return 1 << 30

    monkeypatch.setattr(pipeline_module, "free_bytes", free_bytes)
    heard(batched(size=0))
    assert sizes.asked == ["cpu"]
    assert library.asked[0][0] == 5, "half of a gigabyte holds five"
