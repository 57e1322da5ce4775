"""Where the models of alignment and diarization come from, and what is said when they do not come.

Every question is asked twice: with the hub's library that is installed here, and, in the image,
with the older one that whisperx needs.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from speech_service.contract.errors import ModelMissing, ModelUnavailable
from speech_service.work.download import Download, WebFile
from whisperx_engine import sources
from whisperx_engine.sources import Sources

from ..fake_hub import FakeHub
from ..hub_questions import PIPELINE, TOKEN, Ask, in_image


def test_what_was_accepted_is_fetched_as_a_whole(ask: Ask, hub: FakeHub, pipeline: Path) -> None:
    folder = Path(ask(TOKEN, diarization=PIPELINE)["folder"])
    for name in ("config.yaml", "embedding/pytorch_model.bin", "plda/plda.npz"):
        assert (folder / name).read_text() == (pipeline / name).read_text()
    assert "README.md" not in hub.downloads()


def test_what_is_here_needs_neither_token_nor_network(ask: Ask, hub: FakeHub) -> None:
    folder = ask(TOKEN, diarization=PIPELINE)
    hub.requests.clear()
    assert ask(diarization=PIPELINE) == folder
    assert ask(diarization=PIPELINE, offline=True) == folder
    assert hub.requests == []


def test_a_download_that_was_cut_is_completed(ask: Ask, hub: FakeHub) -> None:
    folder = Path(ask(TOKEN, diarization=PIPELINE)["folder"])
    (folder / "plda" / "plda.npz").unlink()
    hub.requests.clear()
    ask(TOKEN, diarization=PIPELINE)
    assert (folder / "plda" / "plda.npz").read_text() == "plda/plda.npz"
    assert hub.downloads() in (["plda/plda.npz"], [])


def test_a_line_break_at_the_end_does_not_spoil_a_token(ask: Ask, hub: FakeHub) -> None:
    assert "folder" in ask(f"{TOKEN}\n", diarization=PIPELINE)
    assert hub.tokens == {TOKEN}


def test_a_hub_that_does_not_answer_is_given_up_after_the_first_try(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answer = ask(TOKEN, diarization=PIPELINE, hub_at=address)
        assert answer["code"] == "hub_unreachable"
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_revision_is_fetched_and_found_again_by_its_name(ask: Ask, hub: FakeHub) -> None:
    newest = ask(TOKEN, diarization=PIPELINE)["folder"]
    commit = Path(newest).name
    hub.requests.clear()
    same = ask(TOKEN, diarization=PIPELINE, revisions={PIPELINE: commit})
    assert (same["folder"], hub.requests) == (newest, [])
    other = {PIPELINE: "0" * 40}
    assert ask(TOKEN, diarization=PIPELINE, revisions=other, offline=True)["code"] == (
        "model_not_baked"
    )
    ask(TOKEN, diarization=PIPELINE, revisions=other)
    asked = [line for line in hub.requests if PIPELINE in line]
    assert asked
    assert all("0" * 40 in line or commit in line for line in asked)


def test_a_hub_that_fails_is_not_asked_again_and_again(ask: Ask, hub: FakeHub) -> None:
    hub.broken = True
    assert ask(TOKEN, diarization=PIPELINE)["code"] == "hub_unreachable"
    assert len(hub.requests) == 1


def test_offline_nothing_is_asked(ask: Ask, hub: FakeHub) -> None:
    answer = ask(TOKEN, diarization=PIPELINE, offline=True)
    assert answer["code"] == "model_not_baked"
    assert hub.requests == []


def test_a_gated_model_that_a_pipeline_refers_to_is_named_itself(ask: Ask, hub: FakeHub) -> None:
    other = "pyannote/segmentation-3.0"
    hub.repositories[other] = hub.repositories[PIPELINE] / "segmentation"
    hub.gated.add(other)
    answer = ask(TOKEN, file=other, while_loading=PIPELINE)
    assert answer["code"] == "hf_terms_not_accepted"
    assert f"https://huggingface.co/{other}" in answer["message"]
    assert ask(file=other, while_loading=PIPELINE)["code"] == "hf_token_missing"
    assert ask(file=other, while_loading=PIPELINE, offline=True)["code"] == "model_not_baked"


@pytest.mark.parametrize("where", ["named", "baked"])
def test_a_folder_is_taken_as_it_is(
    ask: Ask, hub: FakeHub, pipeline: Path, tmp_path: Path, where: str
) -> None:
    baked = tmp_path / "models" / "diarization" / PIPELINE
    baked.parent.mkdir(parents=True)
    baked.symlink_to(pipeline)
    model, folder = (str(pipeline), pipeline) if where == "named" else (PIPELINE, baked)
    assert ask(diarization=model) == {"folder": str(folder)}
    assert hub.requests == []


def test_a_folder_without_a_pipeline_is_not_taken_for_a_hub_id(ask: Ask, hub: FakeHub) -> None:
    assert "is the volume mounted?" in ask(diarization="/nowhere/pipeline")["message"]
    assert hub.requests == []


@pytest.mark.parametrize("place", ["own/ru", "own", "models/alignment/ru", "models/alignment"])
def test_an_alignment_model_of_ones_own_serves_one_language_or_all(
    ask: Ask, tmp_path: Path, place: str
) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "config.json").touch()
    answer = ask(alignment="ru", directory=str(tmp_path / "own"))
    assert answer == {"name": str(tmp_path / place), "dir": None}


@pytest.mark.docker
@pytest.mark.parametrize("ask", [in_image], indirect=True)
def test_a_public_alignment_model_is_fetched_in_one_format_and_found_again(
    ask: Ask, hub: FakeHub, tmp_path: Path
) -> None:
    repository = tmp_path / "russian"
    repository.mkdir()
    files = ("config.json", "preprocessor_config.json", "vocab.json", "model.safetensors")
    for name in (*files, "pytorch_model.bin", "flax_model.msgpack", "language_model.bin"):
        (repository / name).write_text(name)
    hub.repositories["jonatasgrosman/wav2vec2-large-xlsr-53-russian"] = repository
    own = str(tmp_path / "cache-of-ones-own")
    found = ask(alignment="ru", directory=own)
    assert found["name"].startswith(own)
    assert sorted(hub.downloads()) == sorted(files)
    hub.requests.clear()
    assert ask(alignment="ru", directory=own, offline=True) == found
    assert hub.requests == []


@pytest.mark.docker
@pytest.mark.parametrize("ask", [in_image], indirect=True)
def test_a_bundle_of_torchaudios_is_found_where_it_was_baked(ask: Ask, tmp_path: Path) -> None:
    assert ask(alignment="en", directory=None, offline=True)["code"] == "model_not_baked"
    baked = tmp_path / "models" / "alignment"
    baked.mkdir(parents=True)
    (baked / "wav2vec2_fairseq_base_ls960_asr_ls960.pth").touch()
    answer = ask(alignment="en", directory=None, offline=True)
    assert answer == {"name": "WAV2VEC2_ASR_BASE_960H", "dir": str(baked)}


@pytest.mark.docker
@pytest.mark.parametrize("ask", [in_image], indirect=True)
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_bundle_of_torchaudios_is_fetched_from_where_torchaudio_has_it(
    ask: Ask, tmp_path: Path, language: str
) -> None:
    found = ask(bundle=language, directory=None)
    assert [found["address"]] == found["theirs"]
    assert found["folder"] == str(tmp_path / "cache" / "torch" / "hub" / "checkpoints")


@pytest.mark.docker
@pytest.mark.parametrize("ask", [in_image], indirect=True)
def test_a_language_that_nobody_can_align_is_no_trouble_with_the_hub(ask: Ask) -> None:
    assert "'la'" in ask(alignment="la", directory=None)["impossible"]


def known(tmp_path: Path, **settings: Any) -> Sources:
    return Sources(PIPELINE, models=tmp_path / "models", min_free=0.25, **settings)


def test_what_has_to_be_fetched_is_named_and_told_with_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    own, commit = tmp_path / "own", "0" * 40
    here = known(
        tmp_path, token=SecretStr(TOKEN), directory=own, revisions={PIPELINE: commit, "o/r": "v2"}
    )
    with pytest.raises(ModelMissing) as missing:
        here.diarization()
    assert missing.value.name == f"diarization:{PIPELINE}"
    pipeline = here.download(missing.value.name)
    assert isinstance(pipeline, Download)
    assert (pipeline.repository, pipeline.token, pipeline.revision) == (PIPELINE, TOKEN, commit)
    assert (pipeline.cache, pipeline.min_free) == (None, 0.0), (
        "what the operator wants has no limit"
    )
    aligner = here.download("alignment:o/r")
    assert isinstance(aligner, Download)
    assert (aligner.repository, aligner.revision, aligner.token) == ("o/r", "v2", TOKEN)
    assert (aligner.cache, aligner.min_free) == (str(own), 0.25)
    assert here.download("alignment:w.pt") == WebFile(
        "https://download.pytorch.org/torchaudio/models/w.pt", str(own), 0.25
    )


@pytest.mark.parametrize("name", ["diarization:o/r", "alignment:o/r", "alignment:w.pt"])
def test_what_forbids_a_download_is_told_before_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
        known(tmp_path, offline=True).download(name)
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
        known(tmp_path, offline=True).diarization()
    no_token = known(tmp_path, token=SecretStr("sk-1234567890"))
    with pytest.raises(ModelUnavailable, match="starts with hf_"):
        no_token.diarization()


def test_torchaudios_files_lie_where_torch_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    here = known(tmp_path)
    assert here.path("alignment:w.pt") is None
    for folder in (tmp_path / "models" / "alignment", tmp_path / "torch" / "hub" / "checkpoints"):
        folder.mkdir(parents=True)
        (folder / "w.pt.part").touch()
        assert here.path("alignment:w.pt") != folder / "w.pt"
        (folder / "w.pt").touch()
        assert here.path("alignment:w.pt") == folder / "w.pt"


def test_whisper_models_of_the_image_have_the_names_that_clients_use(tmp_path: Path) -> None:
    for name in ("small", "Systran/faster-whisper-tiny", "unfinished"):
        (tmp_path / "whisper" / name).mkdir(parents=True)
    for name in ("small", "Systran/faster-whisper-tiny"):
        (tmp_path / "whisper" / name / "model.bin").touch()
    found = sources.whisper_models(tmp_path)
    assert set(found) == {"small", "Systran/faster-whisper-tiny"}
    assert found["small"] == tmp_path / "whisper" / "small"
