"""Which model is loaded how, and what is imported for it; the large libraries are stand-ins."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faster_whisper_engine.settings import Device
from speech_service.contract.errors import ModelMissing, ModelNotFound, ModelUnavailable
from speech_service.contract.transcript import Options, Segment
from whisperx_engine import engine as engine_module
from whisperx_engine import libraries, punkt
from whisperx_engine.alignment import Aligner
from whisperx_engine.diarization import POOL_NAME, Diarizer
from whisperx_engine.engine import IsolatedWhisperX, WhisperX
from whisperx_engine.recognizer import WhisperXRecognizer
from whisperx_engine.settings import WhisperXSettings

from ..fake_hub import FakeHub
from ..hub_questions import PIPELINE as HUB_ID
from ..hub_questions import TOKEN
from ..program import MODEL
from ..test_faster_whisper import ENGLISH
from .stand_ins import stand_in

TORCH = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Puts back what an engine changes of its process, and hides this machine's cache."""
    timeout = socket.getdefaulttimeout()
    for name in ("PYANNOTE_METRICS_ENABLED", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_TOKEN", TORCH):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield
    socket.setdefaulttimeout(timeout)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is imported and loaded, in its order."""
    steps: list[Any] = []
    monkeypatch.setattr(libraries, "imported", lambda threads: steps.append(f"import {threads}"))
    monkeypatch.setattr(punkt, "provide", lambda: steps.append("punkt"))

    def load_align_model(language: str, device: str, **source: Any) -> Any:
        steps.append((language, device, source))
        return object(), {"language": language}

    class Pipeline:
        def __init__(self, **options: Any) -> None:
            steps.append(options)

    cuda = SimpleNamespace(is_available=lambda: False)
    stand_in(monkeypatch, "torch", cuda=cuda)
    stand_in(monkeypatch, "whisperx.alignment", load_align_model=load_align_model)
    stand_in(monkeypatch, "whisperx.diarize", DiarizationPipeline=Pipeline)
    return steps


PIPELINE = "pipeline:\n  name: pyannote.audio.pipelines.SpeakerDiarization\n"


def folder(path: Path, *files: str) -> Path:
    path.mkdir(parents=True)
    for name in files:
        (path / name).write_text(PIPELINE)
    return path


def engine(**settings: Any) -> WhisperX:
    chosen = {"model": str(MODEL), "offline": True, "cpu_threads": 3, **settings}
    prepared = WhisperX(WhisperXSettings(**chosen))
    prepared.prepare(lambda name: nullcontext())
    return prepared


def test_a_whisper_model_is_loaded_without_the_large_libraries(steps: list[Any]) -> None:
    assert isinstance(engine().load(MODEL.name), WhisperXRecognizer)
    assert steps == []


def test_the_large_libraries_come_when_the_service_answers_already(steps: list[Any]) -> None:
    wanted = engine()
    borrowed: list[str] = []

    def borrow(name: str) -> Any:
        borrowed.append(name)
        return nullcontext(wanted.load(name))

    wanted.prepare(borrow)
    assert steps == []
    wanted.complete()
    assert (steps, borrowed) == (["import 3"], [libraries.POOL_NAME])


def test_what_is_found_and_fetched_is_so_here_and_the_rest_in_a_process_of_its_own() -> None:
    isolated = IsolatedWhisperX(WhisperXSettings(model=str(MODEL), offline=True))
    isolated.prepare(lambda name: nullcontext())
    assert isolated.is_local(isolated.resolve(None))
    model = isolated.load(MODEL.name)
    audio = iter([ENGLISH.samples()])
    said = "".join(
        item.text for item in model.transcribe(audio, Options()) if isinstance(item, Segment)
    )
    assert said.strip() == ENGLISH.text


def test_an_aligner_is_loaded_from_the_operators_folder(steps: list[Any], tmp_path: Path) -> None:
    own = folder(tmp_path / "own", "config.json")
    assert isinstance(engine(align_model_dir=own).load("alignment:la"), Aligner)
    source = {"model_name": str(own), "model_dir": None}
    assert steps == ["import 3", "punkt", ("la", "cpu", source)]


def test_a_diarizer_is_found_before_anything_is_imported_for_it(
    steps: list[Any], tmp_path: Path
) -> None:
    own = folder(tmp_path / "own", "config.yaml")
    wanted = engine(diarize_model=str(own), hf_token="hf_secret")
    assert isinstance(wanted.load(POOL_NAME), Diarizer)
    options = {"model_name": str(own), "token": "hf_secret", "device": "cpu"}
    assert steps == ["import 3", options]


def test_a_diarizer_that_is_not_here_imports_nothing(steps: list[Any]) -> None:
    with pytest.raises(ModelUnavailable) as refused:
        engine().load(POOL_NAME)
    assert refused.value.code == "model_not_baked"
    assert steps == []


def test_a_diarizer_that_has_to_be_fetched_is_named_and_imports_nothing(steps: list[Any]) -> None:
    with pytest.raises(ModelMissing) as missing:
        engine(offline=False).load(POOL_NAME)
    assert missing.value.name == "diarization:pyannote/speaker-diarization-community-1"
    assert steps == []


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_what_is_missing_is_fetched_by_its_name_and_here_from_then_on(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """In the cache of the process that downloads, which is this one's too."""
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    wanted, name = engine(offline=False, hf_token=token), f"diarization:{HUB_ID}"
    assert not wanted.is_local(name)
    if not token:
        with pytest.raises(ModelUnavailable) as refused:
            await wanted.fetch(name, lambda done, total: None)
        assert refused.value.code == "hf_token_missing"
        return
    await wanted.fetch(name, lambda done, total: None)
    assert wanted.is_local(name)
    hub.requests.clear()
    await wanted.fetch(name, lambda done, total: None)
    assert hub.requests == []


async def test_a_pipeline_that_lacks_a_part_is_no_model(
    hub: FakeHub, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    (pipeline / "embedding" / "pytorch_model.bin").unlink()
    with pytest.raises(ModelNotFound, match="lacks parts"):
        await engine(offline=False, hf_token=TOKEN).fetch(
            f"diarization:{HUB_ID}", lambda done, total: None
        )


async def test_whispers_own_models_are_fetched_by_the_plain_engine() -> None:
    wanted = engine()
    assert wanted.is_local(MODEL.name)
    await wanted.fetch(MODEL.name, lambda done, total: None)


@pytest.mark.parametrize(
    ("settings", "gpu", "device"),
    [
        ({}, False, "cpu"),
        ({}, True, "cuda:0"),
        ({"device": Device.CPU}, True, "cpu"),
        ({"device": Device.CUDA, "device_index": [2, 3]}, False, "cuda:2"),
        ({"device_index": 1}, True, "cuda:1"),
    ],
)
def test_torch_computes_where_it_is_told_or_where_it_can(
    settings: dict[str, Any], gpu: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "torch", cuda=SimpleNamespace(is_available=lambda: gpu))
    assert engine(**settings)._device() == device


def test_trouble_with_the_hub_while_a_model_is_loaded_has_its_meaning(
    steps: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise ConnectionRefusedError

    stand_in(monkeypatch, "whisperx.alignment", load_align_model=refuse)
    own = folder(tmp_path / "own", "config.json")
    with pytest.raises(ModelUnavailable) as refused:
        engine(align_model_dir=own).load("alignment:la")
    assert refused.value.code == "hub_unreachable"
    assert "the alignment model of 'la'" in refused.value.message


def test_the_pipeline_of_words_is_made_where_torch_computes(
    steps: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(engine_module, "BatchedWhisper", lambda *given: made.append(given))
    recognizer = engine(batch_size=4).load(MODEL.name)
    recognizer._make_batched()
    [(whisper, device, size, weight)] = made
    assert whisper.model.is_multilingual
    assert (device, size, weight) == ("cpu", 4, (MODEL / "model.bin").stat().st_size)
