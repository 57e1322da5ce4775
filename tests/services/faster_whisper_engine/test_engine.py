"""Loading a model: on which device, in which type, and what is said of one that is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
from faster_whisper_engine.engine import FasterWhisper
from faster_whisper_engine.settings import ComputeType, Device, EngineSettings
from faster_whisper_engine.shared_model import SharedModel
from speech_service.contract.errors import ModelUnavailable

from ..program import MODEL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of one's own."""
    return Path(shutil.copytree(MODEL, tmp_path / "own"))


def engine(model: Path, **settings: Any) -> FasterWhisper:
    return FasterWhisper(EngineSettings(model=str(model), offline=True, **settings))


def test_a_cpu_computes_in_int8_unless_it_is_told_otherwise(folder: Path) -> None:
    model = engine(folder).load("own").whisper.model
    assert isinstance(model, SharedModel)
    # What is no product of matrices has no int8.
    assert (model.device, model.compute_type) == ("cpu", "int8_float32")
    chosen = engine(folder, compute_type=ComputeType.FLOAT32, device=Device.CPU).load("own")
    assert chosen.whisper.model.compute_type == "float32"


@pytest.mark.parametrize(
    ("gpus", "types", "expected"),
    [
        (0, {"float16"}, ("cpu", "int8")),
        (1, {"float16", "float32"}, ("cuda", "float16")),
        (1, {"float32"}, ("cuda", "float32")),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_and_computes_in_what_it_can(
    gpus: int, types: set[str], expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: gpus)
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda device: types)
    assert engine(MODEL)._device() == expected


def test_workers_share_the_processors(folder: Path) -> None:
    model = engine(folder, num_workers=2, cpu_threads=3).load("own").whisper.model
    assert (model.num_workers, model.num_active_batches) == (2, 0)


def test_damaged_weights_are_told_by_the_log_and_not_by_the_answer(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "model.bin").write_bytes(b"no weights")
    with pytest.raises(ModelUnavailable, match="the log says why") as refused:
        engine(folder).load("own")
    assert str(folder) not in refused.value.message
    assert "model cannot be loaded" in caplog.text


def test_offline_a_model_must_bring_its_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"no tokenizer\.json"):
        engine(folder).load("own")


def test_weights_are_weighed_where_they_are(folder: Path) -> None:
    assert engine(folder).weight_bytes("own") == (folder / "model.bin").stat().st_size
    assert engine(folder).weight_bytes("org/elsewhere") == 0
