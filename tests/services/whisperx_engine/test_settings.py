"""The variables of the second engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from speech_service.contract.settings import read_environment
from whisperx_engine.settings import WhisperXSettings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this machine takes part."""
    for name in os.environ:
        if name.startswith(("WHISPER", "HF_", "MAX_")):
            monkeypatch.delenv(name)


def test_words_and_speakers_keep_recordings_in_memory_so_limits_are_lower() -> None:
    settings = read_environment(WhisperXSettings)
    assert (settings.max_audio_seconds, settings.max_jobs) == (14_400, 2)
    assert (settings.model, settings.batch_size) == ("base", 0)
    assert settings.diarize_model == "pyannote/speaker-diarization-community-1"
    assert (settings.align_model_dir, settings.hf_token) == (None, None)


def test_its_variables_have_its_name_and_not_the_other_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"MODEL": "tiny", "TTL": "1", "CPU_THREADS": "3"}.items():
        monkeypatch.setenv(f"WHISPER__{name}", value)
    monkeypatch.setenv("WHISPERX__MODEL", "small")
    monkeypatch.setenv("WHISPERX_TTL", "2")
    settings = read_environment(WhisperXSettings)
    assert (settings.model, settings.ttl, settings.cpu_threads) == ("small", 2, 0)


def test_the_token_is_that_of_the_hubs_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WHISPERX__ALIGN_MODEL_DIR", "/own")
    settings = read_environment(WhisperXSettings)
    assert settings.hf_token is not None
    assert settings.hf_token.get_secret_value() == "hf_secret"
    assert "hf_secret" not in repr(settings)
    assert settings.align_model_dir == Path("/own")
