"""The variables that every engine shares."""

from __future__ import annotations

import os

import pytest
from speech_service.contract.settings import BadSettings, Settings, read_environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this machine takes part."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in os.environ:
        if name.startswith(("WHISPER", "UVICORN")):
            monkeypatch.delenv(name)


def test_without_any_variable_a_service_keeps_to_itself() -> None:
    settings = read_environment(Settings)
    assert settings.host == "127.0.0.1"
    assert (settings.api_key, settings.allow_origins, settings.allow_url) == (None, [], False)
    assert (settings.jobs, settings.max_queued, settings.ttl) == (1, 16, 300)


def test_a_default_language_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for named, language in (("auto", None), ("German", "de")):
        monkeypatch.setenv("DEFAULT_LANGUAGE", named)
        assert read_environment(Settings).default_language == language


def test_case_of_a_level_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    assert read_environment(Settings).log_level == "warning"


def test_every_bad_variable_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVICORN_PORT", "hunter2")
    monkeypatch.setenv("MAX_QUEUED", "hunter3")
    with pytest.raises(BadSettings) as refused:
        read_environment(Settings)
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["UVICORN_PORT", "MAX_QUEUED"]
    assert "hunter" not in str(refused.value)


def test_what_should_be_json_says_so_by_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_ORIGINS", "https://page.example")
    with pytest.raises(BadSettings, match=r'^ALLOW_ORIGINS: must be JSON, such as \["a", "b"\]$'):
        read_environment(Settings)


def test_a_key_does_not_show_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "hunter2")
    settings = read_environment(Settings)
    assert settings.api_key is not None and settings.api_key.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("*", ["*"]),
        ('["*"]', ["*"]),
        ("org/a, org/b", ["org/a", "org/b"]),
        (' ["org/a", "org/b"]', ["org/a", "org/b"]),
        ("", []),
    ],
)
def test_names_come_as_json_or_with_commas(
    written: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOW_MODELS", written)
    assert read_environment(Settings).allow_models == names


def test_names_that_are_neither_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_MODELS", '["org/a"')
    with pytest.raises(BadSettings, match="ALLOW_MODELS"):
        read_environment(Settings)


@pytest.mark.parametrize(
    ("given", "uploads"),
    [
        ({}, 17),
        ({"max_queued": 1, "max_jobs": 4}, 8),
        ({"max_queued": 60, "max_jobs": 4}, 64),
        ({"max_uploads": 2}, 2),
    ],
)
def test_as_many_uploads_are_read_as_there_is_room_for(given: dict[str, int], uploads: int) -> None:
    assert Settings(**given).uploads == uploads  # type: ignore[arg-type]
