"""The engine without a model: its variables, its names for models, a hub that may be away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from faster_whisper_engine.catalog import Catalog
from faster_whisper_engine.cpus import available_cpus
from faster_whisper_engine.settings import EngineSettings
from speech_service.contract.errors import ModelNotFound, ModelUnavailable
from speech_service.contract.settings import BadSettings, read_environment

from ..harness import wait_until
from ..program import program


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine, and no model of its cache, takes part."""
    for name in os.environ:
        if name.startswith(("WHISPER", "HF_", "UVICORN")) or name in ("API_KEY", "LOG_LEVEL"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


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
    ],
)
def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=f"^{name}: "):
        read_environment(EngineSettings)


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


def test_names_of_models(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "model.bin").write_bytes(b"x")
    aliases = {"gpt-4o-transcribe": "base", "mine": str(own)}
    catalog = Catalog(EngineSettings(model="tiny", model_aliases=aliases), {})
    tiny = "Systran/faster-whisper-tiny"
    assert catalog.resolve(None) == catalog.resolve("whisper-1") == tiny
    assert catalog.resolve("tiny") == catalog.resolve(tiny) == tiny
    assert catalog.resolve("gpt-4o-transcribe") == "Systran/faster-whisper-base"
    assert catalog.resolve("mine") == catalog.resolve("own") == "own"
    assert catalog.path("own") == own
    assert [card.id for card in catalog.local()] == ["own"]


@pytest.mark.parametrize(
    "name",
    ["/etc", "../own", "~/x", "a/b/c", "a//b", "../../a/b", "a/..", "huge", "", " ", "a b/c"],
)
def test_a_client_cannot_name_a_path(name: str, tmp_path: Path) -> None:
    catalog = Catalog(EngineSettings(model="tiny"), {})
    if name:
        with pytest.raises(ModelNotFound):
            catalog.resolve(name)
    else:
        assert catalog.resolve(name) == "Systran/faster-whisper-tiny"


def test_offline_the_default_is_missing_and_a_wish_is_unknown() -> None:
    catalog = Catalog(EngineSettings(model="tiny", offline=True), {})
    with pytest.raises(ModelUnavailable) as missing:
        catalog.fetch(catalog.resolve(None), lambda done, total: None)
    assert missing.value.code == "model_not_baked"
    with pytest.raises(ModelNotFound, match="HF_HUB_OFFLINE"):
        catalog.fetch("Systran/faster-whisper-base", lambda done, total: None)


def test_a_directory_without_a_model_says_so(tmp_path: Path) -> None:
    catalog = Catalog(EngineSettings(model=str(tmp_path / "gone")), {})
    assert catalog.resolve(None) == catalog.default == "gone"
    with pytest.raises(ModelUnavailable, match=r"no model\.bin"):
        catalog.fetch("gone", lambda done, total: None)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
    ids=["v2", "v2 without limit", "v1", "v1 without limit", "no cgroup"],
)
def test_processors_are_those_of_the_container(
    files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert available_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelUnavailable) as refusal:
        Catalog(EngineSettings(model="tiny"), {}).fetch("org/small", lambda done, total: None)
    assert refusal.value.code == "cache_not_writable"


COMMIT = "c" * 40
FILES = {"config.json": b"{}", "model.bin": bytes(300_000), "tokenizer.json": b"{}"}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as downloading a model needs; statuses by name of the model."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if "/gated" in path:
            self._reply(403, b"{}", body, {"X-Error-Code": "GatedRepo"})
        elif "/missing" in path:
            self._reply(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        elif "/broken" in path:
            self._reply(500, b"{}", body, {})
        elif "/resolve/" in path:
            data = FILES[path.rpartition("/")[2]]
            self._reply(200, data, body, {"ETag": f'"{len(data)}"', "X-Repo-Commit": COMMIT})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": str(len(data))}
                for name, data in FILES.items()
            ]
            self._reply(200, json.dumps(tree).encode(), body, {})
        else:
            siblings = [{"rfilename": name} for name in FILES]
            found = {"id": "org/small", "sha": COMMIT, "siblings": siblings}
            self._reply(200, json.dumps(found).encode(), body, {})

    def _reply(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@contextmanager
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_model_is_fetched_from_the_hub_with_progress(tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "", "WHISPER__MODEL": str(tmp_path / "none")}
    with hub() as url, program(tmp_path, HF_ENDPOINT=url, **environment) as engine:
        http = engine.http
        assert http.get("/v1/models").json()["data"] == []
        pulled = http.post("/api/pull/org/small?stream=true").text
        assert pulled.endswith('data: {"status": "success"}\n\n')
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["org/small"]
        assert http.post("/api/pull/org/small").text == "Model already exists"
        # What was fetched is no real model; that is told apart from one that is not there.
        damaged = http.post("/api/ps/org/small")
        assert (damaged.status_code, damaged.json()["error"]["param"]) == (503, "model")
        for name, status, code in (
            ("org/missing", 404, "model_not_found"),
            ("org/gated", 503, "hf_terms_not_accepted"),
            ("org/broken", 503, "hub_unreachable"),
        ):
            answer = http.post(f"/api/pull/{name}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_hub_that_is_away_is_a_clear_error_and_the_service_stays(tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "", "WHISPER__MODEL": "org/small"}
    away = "http://127.0.0.1:9"
    with program(tmp_path, HF_ENDPOINT=away, **environment) as engine:
        wait_until(lambda: "cannot be reached" in engine.http.get("/ready").text, 30)
        assert engine.http.get("/ready").status_code == 503
        assert engine.http.get("/health").text == "OK"
