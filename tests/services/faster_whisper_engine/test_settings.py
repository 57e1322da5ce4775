"""The variables of the first engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from faster_whisper_engine.settings import EngineSettings, FasterWhisperSettings
from speech_service.contract.settings import BadSettings, read_environment


def test_without_any_variable_it_is_what_users_know() -> None:
    settings = read_environment(EngineSettings)
    assert settings.model == "Systran/faster-whisper-small"
    assert (settings.device, settings.compute_type) == ("auto", "default")
    assert (settings.ttl, settings.num_workers, settings.cpu_threads) == (300, 1, 0)
    assert (settings.max_upload_bytes, settings.max_audio_seconds) == (500_000_000, 36_000)
    assert (settings.max_jobs, settings.max_queued) == (4, 16)
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_old_and_new_names_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_MODEL", "tiny")
    assert read_environment(EngineSettings).model == "tiny"
    monkeypatch.setenv("WHISPER__MODEL", "base")
    assert read_environment(EngineSettings).model == "base"


def test_the_names_of_other_servers_count_where_ours_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTERWHISPER_MODEL", "tiny")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    settings = read_environment(EngineSettings)
    assert (settings.model, settings.cpu_threads) == ("tiny", 3)
    monkeypatch.setenv("WHISPER__MODEL", "base")
    monkeypatch.setenv("WHISPER__CPU_THREADS", "1")
    settings = read_environment(EngineSettings)
    assert (settings.model, settings.cpu_threads) == ("base", 1)


def test_of_openmps_list_the_outermost_level_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert read_environment(EngineSettings).cpu_threads == 4


def test_older_ports_are_those_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_environment(FasterWhisperSettings).older_ports == frozenset()
    monkeypatch.setenv("HTTP_PORT", "8080")
    assert read_environment(FasterWhisperSettings).older_ports == {8080}
    monkeypatch.setenv("PORT_WHISPERLIVE", "5050")
    assert read_environment(FasterWhisperSettings).older_ports == {5050, 8080}


def test_no_worker_is_without_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "2")
    assert read_environment(EngineSettings).jobs == 2
    monkeypatch.setenv("WHISPER__NUM_WORKERS", "3")
    assert read_environment(EngineSettings).jobs == 3


def test_lists_and_maps_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELOAD_MODELS", '["tiny", "base"]')
    monkeypatch.setenv("MODEL_ALIASES", '{"gpt-4o-transcribe": "base"}')
    monkeypatch.setenv("ALLOW_ORIGINS", '["*"]')
    monkeypatch.setenv("WHISPER__DEVICE_INDEX", "[0, 1]")
    monkeypatch.setenv("DEFAULT_LANGUAGE", "French")
    settings = read_environment(EngineSettings)
    assert settings.preload_models == ["tiny", "base"]
    assert settings.model_aliases == {"gpt-4o-transcribe": "base"}
    assert (settings.device_index, settings.default_language) == ([0, 1], "fr")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "PRELOAD_MODELS", "DEFAULT_LANGUAGE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    settings = read_environment(EngineSettings)
    assert (settings.api_key, settings.preload_models, settings.offline) == (None, [], False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WHISPER__TTL", "soon"),
        ("WHISPER__NUM_WORKERS", "0"),
        ("WHISPER__COMPUTE_TYPE", "int7"),
        ("PRELOAD_MODELS", "tiny"),
        ("DEFAULT_LANGUAGE", "xx"),
        ("UVICORN_PORT", "99999"),
        ("HTTP_PORT", "0"),
        ("PORT_WHISPERLIVE", "x"),
    ],
)
def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=f"^{name}: "):
        read_environment(FasterWhisperSettings)


def test_bad_settings_end_the_program_with_one_line_each() -> None:
    environment = os.environ | {"WHISPER__TTL": "soon", "UVICORN_PORT": "x"}
    ended = subprocess.run(
        [sys.executable, "-m", "faster_whisper_engine"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["UVICORN_PORT", "WHISPER__TTL"]
