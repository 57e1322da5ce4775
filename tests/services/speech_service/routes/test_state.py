"""Health and readiness: what operators and probers ask."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

from speech_service.contract.errors import ModelUnavailable
from speech_service.routes.state import ready
from speech_service.work.service import SpeechService

from ... import media
from ...harness import FakeEngine, serve, wait_until


def test_health_is_a_word_or_an_object() -> None:
    with serve() as http:
        wait_until(lambda: http.get("/ready").status_code == 200)
        plain = http.get("/health")
        assert (plain.text, plain.headers["content-type"]) == ("OK", "text/plain; charset=utf-8")
        assert http.get("/health", headers={"accept": "application/json"}).json() == {
            "status": "ok",
            "service": "fake",
            "model": "tiny",
            "ready": True,
        }


def test_ready_is_honest_while_the_model_is_loading() -> None:
    allowed = threading.Event()
    with serve(FakeEngine(loading=lambda name: allowed.wait(20))) as http:
        assert http.get("/health").status_code == 200
        waiting = http.get("/ready")
        assert waiting.status_code == 503
        assert waiting.json()["reason"] == "the model is being loaded"
        allowed.set()
        wait_until(lambda: http.get("/ready").status_code == 200)


def test_ready_says_why_the_model_cannot_be_had() -> None:
    def loading(name: str) -> None:
        raise ModelUnavailable("the hub cannot be reached", "hub_unreachable")

    with serve(FakeEngine(loading=loading)) as http:
        wait_until(lambda: "hub" in http.get("/ready").text)
        answer = http.post("/v1/audio/transcriptions", files={"file": media.tone()})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "hub_unreachable"
        assert "retry-after" in answer.headers


def test_a_model_unloaded_for_idleness_still_counts_as_ready() -> None:
    with serve(ttl=0) as http:
        wait_until(lambda: http.get("/ready").status_code == 200)
        wait_until(lambda: http.get("/api/ps").json() == {"models": []})
        assert http.get("/ready").json() == {"ready": True, "loaded": []}


def test_models_are_preloaded() -> None:
    engine = FakeEngine()
    with serve(engine, preload_models=["org/small"]) as http:
        wait_until(lambda: http.get("/ready").status_code == 200)
    assert engine.loads == ["tiny", "org/small"]


def test_a_service_that_ends_is_not_ready() -> None:
    closing = cast("SpeechService", SimpleNamespace(closing=True))
    answer = asyncio.run(ready(closing))
    assert answer.status_code == 503
    assert b"shutting down" in bytes(answer.body)
