"""Which models are here and in memory, and how clients change that."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
from speech_service.contract.engine import Reached

from ... import media
from ...harness import FakeEngine, serve, wait_until


def test_models_are_listed_in_openais_shape() -> None:
    with serve() as http:
        listed = http.get("/v1/models").json()
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == ["tiny", "org/small"]
        assert http.get("/v1/models/org/small").json()["id"] == "org/small"
        assert http.get("/v1/models/whisper-1").json()["id"] == "whisper-1"
        for missing in ("org/other", "nothing"):
            answer = http.get(f"/v1/models/{missing}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_models_are_loaded_and_unloaded_by_hand() -> None:
    with serve(ttl=-1) as http:
        wait_until(lambda: http.get("/api/ps").json() == {"models": ["tiny"]})
        assert http.post("/api/ps/org/small").status_code == 201
        assert http.get("/api/ps").json() == {"models": ["tiny", "org/small"]}
        assert http.post("/api/ps/org/small").status_code == 409
        assert http.delete("/api/ps/org/small").status_code == 204
        assert http.delete("/api/ps/org/small").status_code == 404


def test_a_model_in_use_is_not_unloaded() -> None:
    allowed = threading.Event()
    engine = FakeEngine(pace=lambda: allowed.wait(20))
    with serve(engine, ttl=-1) as http:
        url = f"{http.base_url}/v1/audio/transcriptions"
        using = threading.Thread(target=lambda: httpx.post(url, files={"file": media.tone()}))
        using.start()
        wait_until(lambda: len(engine.asked) == 1)
        assert http.delete("/api/ps/tiny").status_code == 409
        allowed.set()
        using.join(20)


def test_pulling_tells_what_it_did() -> None:
    with serve() as http:
        assert http.post("/api/pull/org/small").status_code == 200
        assert http.post("/api/pull/org/other").status_code == 404
        events = http.post("/api/pull/org/small?stream=true")
        assert events.text == 'data: {"status": "success"}\n\n'
        failed = http.post("/api/pull/org/other?stream=true")
        assert '"code": "model_not_found"' in failed.text


def test_a_long_download_tells_how_far_it_is() -> None:
    class Slow(FakeEngine):
        async def fetch(self, model: str, progress: Reached) -> None:
            progress(1024, 4096)
            assert await asyncio.to_thread(allowed.wait, 20)

    allowed = threading.Event()
    with (
        serve(Slow()) as http,
        http.stream("POST", "/api/pull/org/other?stream=true") as answer,
    ):
        lines = (line for line in answer.iter_lines() if line)
        told = json.loads(next(lines).removeprefix("data: "))
        assert told == {"status": "downloading", "completed": 1024, "total": 4096}
        allowed.set()
        assert list(lines)[-1] == 'data: {"status": "success"}'


def test_a_download_that_is_needed_is_told_from_one_that_is_not() -> None:
    class Fetching(FakeEngine):
        async def fetch(self, model: str, progress: Reached) -> None:
            progress(1, 1)

    with serve(Fetching()) as http:
        fetched = http.post("/api/pull/org/other")
        assert (fetched.status_code, fetched.text) == (201, "Model downloaded")
        known = http.post("/api/pull/org/small")
        assert (known.status_code, known.text) == (200, "Model already exists")
