"""What the build of an image does with the names of models, and what it says where it cannot."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faster_whisper
import nltk.downloader
import pytest
from pydantic import SecretStr
from speech_service.contract.errors import ModelMissing, ModelUnavailable, SpeechError
from whisperx_engine import bake as bake_module
from whisperx_engine import sources
from whisperx_engine.bake import bake, main
from whisperx_engine.sources import Sources

PIPELINE = "pyannote/speaker-diarization-community-1"
TOKEN = SecretStr("hf_secret")


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what a bake changes of its process."""
    timeout, environment = socket.getdefaulttimeout(), dict(os.environ)
    yield
    socket.setdefaulttimeout(timeout)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of the hub's cache, which is what every source leads to."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "config.yaml").write_text("pipeline:\n  params:\n    plda: $model/plda\n")
    source = sources.AlignmentSource(str(folder))
    monkeypatch.setattr(Sources, "diarization", lambda _: folder)
    monkeypatch.setattr(Sources, "alignment", lambda *_: source)
    return folder


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("diarization", f"diarization/{PIPELINE}"),
        ("diarization:org/own", "diarization/org/own"),
        ("align:ru", "alignment/ru"),
    ],
)
def test_a_model_lies_where_the_engine_looks_for_it(
    word: str, place: str, cached: Path, tmp_path: Path
) -> None:
    bake(word, tmp_path / "models", TOKEN)
    assert (tmp_path / "models" / place / "config.yaml").is_file()


def test_what_is_there_already_is_left(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baked = cached / "diarization" / PIPELINE
    baked.mkdir(parents=True)
    (baked / "config.yaml").touch()
    monkeypatch.setattr(Sources, "diarization", lambda _: baked)
    bake("diarization", cached, TOKEN)
    assert list(baked.iterdir()) == [baked / "config.yaml"]


def test_a_whisper_model_is_fetched_with_the_token_and_without_leftovers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def download_model(name: str, output_dir: str, use_auth_token: str) -> None:
        asked.append((name, use_auth_token))
        (Path(output_dir) / ".cache").mkdir(parents=True)
        (Path(output_dir) / "model.bin").touch()

    monkeypatch.setattr(faster_whisper, "download_model", download_model)
    bake("whisper:small", tmp_path, TOKEN)
    assert asked == [("small", "hf_secret")]
    folder = tmp_path / "whisper" / "small"
    assert list(folder.iterdir()) == [folder / "model.bin"]


def test_sentence_models_are_fetched_in_place_of_the_small_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def download(self: Any, name: str, download_dir: str, quiet: bool) -> bool:
        asked.append((name, download_dir))
        return len(asked) == 1

    monkeypatch.setattr(nltk.downloader.Downloader, "download", download)
    bake("punkt", tmp_path, None)
    assert asked == [("punkt_tab", str(tmp_path / "nltk_data"))]
    with pytest.raises(ModelUnavailable, match="check the network"):
        bake("punkt", tmp_path, None)


@pytest.mark.parametrize("word", ["", "whisper", "whisper:", "align:", "punkt:en", "small"])
def test_a_word_that_names_no_model_is_told_what_would(word: str, tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="write whisper:small, align:en, diarization or punkt"):
        bake(word, tmp_path, None)


def test_a_size_that_does_not_exist_is_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="'huge' is neither a size"):
        bake("whisper:huge", tmp_path, None)


def test_a_language_that_nobody_can_align_stops_the_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nothing(*_: Any) -> Any:
        raise sources.NoAlignmentModel("there is no alignment model for 'la'")

    monkeypatch.setattr(Sources, "alignment", nothing)
    with pytest.raises(SpeechError, match="for 'la'"):
        bake("align:la", tmp_path, None)


BUNDLE = "alignment:w.pt"


@pytest.mark.parametrize("times", [1, 2])
def test_a_bundle_of_torchaudios_is_fetched_and_lies_in_the_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, times: int
) -> None:
    asked: list[Any] = []

    async def download(wanted: Any, progress: Any) -> None:
        asked.append(wanted)
        Path(wanted.folder).mkdir(parents=True)
        Path(wanted.folder, "w.pt").touch()

    def alignment(known: Sources, language: str) -> sources.AlignmentSource:
        file = known.path(BUNDLE)
        if file is None:
            raise ModelMissing(BUNDLE)
        return sources.AlignmentSource("BUNDLE", str(file.parent))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bake_module, "download", download)
    monkeypatch.setattr(Sources, "alignment", alignment)
    for _ in range(times):
        bake("align:en", tmp_path / "models", None)
    [wanted] = asked
    assert wanted.address.endswith("/torchaudio/models/w.pt")
    assert (tmp_path / "models" / "alignment" / "w.pt").is_file()


def test_a_commit_that_is_wanted_is_the_one_that_is_baked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    async def download(wanted: Any, progress: Any) -> None:
        asked.append((wanted.repository, wanted.revision))
        raise ModelUnavailable("enough")

    monkeypatch.setattr(bake_module, "download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("WHISPERX__REVISIONS", json.dumps({PIPELINE: "0" * 40}))
    assert main(["diarization"]) == 1
    assert asked == [(PIPELINE, "0" * 40)]


def test_a_pipeline_that_would_need_the_hub_later_is_not_baked(cached: Path) -> None:
    (cached / "config.yaml").write_text(
        "params:\n  segmentation: pyannote/segmentation-3.0\n  embedding: 'org/voices'\n"
    )
    with pytest.raises(SpeechError, match=r"segmentation-3\.0, org/voices") as refused:
        bake("diarization:org/old", cached, None)
    assert PIPELINE in refused.value.message, "one that can be baked is named"


def test_the_first_model_that_cannot_be_had_ends_the_build_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def refuse(word: str, models: Path, token: SecretStr | None, revisions: Any) -> None:
        asked.append((word, token and token.get_secret_value(), os.environ["HF_HOME"]))
        if word == "diarization":
            raise ModelUnavailable("accept its terms", "hf_terms_not_accepted")

    secret = tmp_path / "hf_token"
    secret.write_text("hf_secret")
    monkeypatch.setattr(bake_module, "SECRET", secret)
    monkeypatch.setattr(bake_module, "bake", refuse)
    assert main(["align:en", "diarization", "align:de"]) == 1
    assert [(word, token) for word, token, _ in asked] == [
        ("align:en", "hf_secret"),
        ("diarization", "hf_secret"),
    ]
    assert capsys.readouterr().err.splitlines()[-1] == "diarization: accept its terms"
    assert not Path(asked[0][2]).exists(), "no cache may stay in the layer"


def test_without_a_secret_there_is_no_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokens: list[Any] = []
    monkeypatch.setattr(bake_module, "SECRET", tmp_path / "absent")
    monkeypatch.setattr(bake_module, "bake", lambda *given: tokens.append(given[2]))
    assert main(["align:en"]) == 0
    assert tokens == [None]
