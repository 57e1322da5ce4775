"""The whole service as an application: what it touches, and when."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fastapi import FastAPI
from speech_service.app import create_app
from speech_service.contract.engine import WORKER_THREADS, Abilities
from speech_service.contract.settings import Settings

from .. import media
from ..harness import FakeEngine, serve


class Untouched:
    """An engine that must be left alone; only what it says of itself may be read."""

    name, default_model, abilities = "fake", "tiny", Abilities(live=False, speakers=False)

    def load(self, model: str) -> Any:
        raise AssertionError("it was asked for a model")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was touched before the start")


def paths(app: FastAPI) -> set[str]:
    return set(app.openapi()["paths"])


def test_an_engine_is_not_touched_before_the_start() -> None:
    app = create_app(Untouched(), Settings(), "test")
    assert {"/v1/audio/transcriptions", "/v1/models", "/health", "/ready"} <= paths(app)
    assert "/transcribe" not in paths(app), "an engine chooses its other families itself"


def test_whatever_works_for_the_engine_has_the_name_that_the_end_goes_by() -> None:
    names: set[str] = set()
    engine = FakeEngine(
        pace=lambda: names.add(threading.current_thread().name),
        loading=lambda model: names.add(threading.current_thread().name),
    )
    with serve(engine) as http:
        http.post("/v1/audio/transcriptions", files={"file": media.tone()})
    assert len(names) >= 1
    assert all(name.startswith(WORKER_THREADS) for name in names)


def test_a_worker_that_goes_on_keeps_nobody_from_ending() -> None:
    allowed = threading.Event()
    with serve(FakeEngine(loading=lambda model: allowed.wait(20))) as http:
        assert http.get("/ready").status_code == 503
        leaving = time.monotonic()
    try:
        assert time.monotonic() - leaving < 10
        assert any(thread.name.startswith(WORKER_THREADS) for thread in threading.enumerate())
    finally:
        allowed.set()


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect"])
def test_there_is_one_documentation(path: str) -> None:
    with serve() as http:
        assert http.get(path).status_code == 404
