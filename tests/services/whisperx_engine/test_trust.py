"""What a model may name: weights, and pyannote's own; the rest is tested in the image."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from speech_service.contract.errors import ModelUnavailable
from whisperx_engine import trust

from .stand_ins import stand_in

OWN = "pyannote.audio.pipelines.SpeakerDiarization"


def pipeline(folder: Path, text: str) -> Path:
    (folder / "config.yaml").write_text(text)
    return folder


def test_the_usual_pipelines_are_trusted(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "speech" / "diarization"
    trust.check_pipeline(shipped)
    trust.check_pipeline(pipeline(tmp_path, f"pipeline: {{name: {OWN}}}\nversion: 3.1.0"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pipeline: {name: subprocess.Popen, params: {args: [id]}}", "'subprocess.Popen'"),
        ("pipeline: {name: pyannote.audio.pipelines.utils.diarization.np}", "as its pipeline"),
        ("pipeline: {name: eval}", "'eval'"),
        ("pipeline: {name: [1]}", "as its pipeline"),
        ("pipeline: []", "names no pipeline"),
        ("[]", "names no pipeline"),
        ("", "names no pipeline"),
        ("a: b: c", "names no pipeline"),
        ("pipeline: !!python/object/apply:os.system [id]", "names no pipeline"),
        (f"pipeline: {{name: {OWN}}}\npreprocessors: {{a: {{name: os.system}}}}", "preprocessors"),
    ],
)
def test_a_pipeline_that_names_something_else_is_not_loaded(
    text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelUnavailable, match=says):
        trust.check_pipeline(pipeline(tmp_path, text))


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], Any]:
    """The classes that torch is told of, and pyannote's loader."""
    told: list[Any] = []
    stand_in(monkeypatch, "torch", serialization=SimpleNamespace(add_safe_globals=told.extend))
    classes = {
        "torch.torch_version": ("TorchVersion",),
        "pyannote.audio.core.task": ("Problem", "Resolution", "Specifications"),
        "pytorch_lightning.callbacks": ("EarlyStopping", "ModelCheckpoint"),
        "omegaconf.base": ("ContainerMetadata", "Metadata"),
        "omegaconf.listconfig": ("ListConfig",),
        "omegaconf.nodes": ("AnyNode",),
    }
    for name, members in classes.items():
        stand_in(monkeypatch, name, **{member: type(member, (), {}) for member in members})
    loader = stand_in(
        monkeypatch,
        "pyannote.audio.core.model",
        import_module=lambda name: name,
        Introspection=type("Introspection", (), {}),
    )
    trust.limit_pickles()
    return told, loader


def test_only_classes_without_powers_are_named(allowed: tuple[list[Any], Any]) -> None:
    names = {each.__name__ for each in allowed[0]}
    assert {"Specifications", "TorchVersion", "ListConfig"} <= names
    assert not names & {"getattr", "eval", "exec", "import_module", "partial", "system"}


def test_a_checkpoint_is_one_of_pyannotes_models(allowed: tuple[list[Any], Any]) -> None:
    load = allowed[1].import_module
    assert load("pyannote.audio.models.segmentation.PyanNet")
    for name in ("os", "pyannote.audio.modelsx", "pyannote.audio.utils", ""):
        with pytest.raises(ModelUnavailable, match="as its kind of model"):
            load(name)


def test_more_than_weights_is_told_with_the_cure() -> None:
    says = "x is not loaded.*the usual model"
    with pytest.raises(ModelUnavailable, match=says) as refused, trust.only_weights("x"):
        raise pickle.UnpicklingError("Unsupported global: GLOBAL posix.system")
    assert refused.value.code == "model_mistrusted"
    with trust.only_weights("x"):
        pass
