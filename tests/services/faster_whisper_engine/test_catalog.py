"""Names of models, what is on this disk, and a hub that may be away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from faster_whisper_engine.catalog import Catalog
from faster_whisper_engine.settings import EngineSettings
from pydantic import SecretStr
from speech_service.contract.errors import ModelNotAllowed, ModelNotFound, ModelUnavailable

from ..harness import wait_until
from ..program import program

TOKEN = "hf_" + "Secret" * 5


def configured(allowed: str = '["org/listed"]') -> Catalog:
    """A catalog of an operator who has a token, an alias and a list of further models."""
    settings: dict[str, Any] = {"allow_models": allowed, "model_aliases": {"own": "org/alias"}}
    settings |= {"preload_models": ["base"], "max_model_bytes": 1000, "min_free_disk": 0.25}
    return Catalog(EngineSettings(model="org/own", hf_token=SecretStr(TOKEN), **settings), {})


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


@pytest.mark.parametrize("name", ["org/a--b", "org/a.git", f"org/{'a' * 200}"])
def test_a_name_that_the_hub_forbids_is_unknown(name: str) -> None:
    catalog = Catalog(EngineSettings(model="tiny"), {})
    with pytest.raises(ModelNotFound, match="neither a hub id"):
        catalog.path(catalog.resolve(name))


def test_offline_the_default_is_missing_and_a_wish_is_unknown() -> None:
    catalog = Catalog(EngineSettings(model="tiny", offline=True), {})
    with pytest.raises(ModelUnavailable) as missing:
        catalog.download(catalog.resolve(None))
    assert missing.value.code == "model_not_baked"
    with pytest.raises(ModelNotFound, match="HF_HUB_OFFLINE"):
        catalog.download("Systran/faster-whisper-base")


OWN = {"org/own", "org/alias", "org/listed", "Systran/faster-whisper-base"}


@pytest.mark.parametrize("name", ["org/own", "own", "org/listed", "base"])
def test_what_the_settings_name_is_fetched_with_the_token_and_without_limits(name: str) -> None:
    wanted = configured().download(configured().resolve(name))
    assert wanted and wanted.repository in OWN
    assert (wanted.token, wanted.max_bytes, wanted.min_free) == (TOKEN, None, 0.0)


@pytest.mark.parametrize(("allowed", "name"), [("org/listed", "small"), ("*", "org/other")])
def test_what_only_a_client_names_is_fetched_without_the_token_and_within_limits(
    allowed: str, name: str
) -> None:
    catalog = configured(allowed)
    wanted = catalog.download(catalog.resolve(name))
    assert wanted and wanted.token is False
    assert (wanted.max_bytes, wanted.min_free) == (1000, 0.25)
    assert "tokenizer.json" in wanted.needed


@pytest.mark.parametrize("name", ["org/other", "org/Own", "systran/faster-whisper-small"])
def test_what_the_operator_does_not_allow_is_refused_with_the_cure(name: str) -> None:
    with pytest.raises(ModelNotAllowed, match="ALLOW_MODELS"):
        configured().download(name)


def test_a_model_that_has_gone_since_it_was_fetched_says_so() -> None:
    with pytest.raises(ModelUnavailable, match="any more"):
        configured().directory("org/own")


def test_a_directory_without_a_model_says_so(tmp_path: Path) -> None:
    catalog = Catalog(EngineSettings(model=str(tmp_path / "gone")), {})
    assert catalog.resolve(None) == catalog.default == "gone"
    with pytest.raises(ModelUnavailable, match=r"no model\.bin"):
        catalog.download("gone")


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
    environment["ALLOW_MODELS"] = "*"
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
            ("org/gated", 503, "hf_token_missing"),
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
