"""Health, readiness, models, metrics, keys: what operators and clients ask beside speech."""

from __future__ import annotations

import threading

import httpx
import pytest
from speech_service.contract.errors import ModelUnavailable
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

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


def test_metrics_count_what_was_done() -> None:
    with serve() as http:
        http.post("/v1/audio/transcriptions", files={"file": media.tone(2.0)})
        http.get("/no/such/route/1")
        text = http.get("/metrics").text
    assert "speech_audio_seconds_total 2.0" in text
    assert 'speech_model_loads_total{result="success"} 1.0' in text
    assert "speech_queue_length 0.0" in text
    assert "speech_real_time_factor_count 1.0" in text
    assert 'speech_requests_total{route="other",status="404"} 1.0' in text
    assert "no/such" not in text


def test_a_key_is_needed_for_everything_but_health_and_pages_without_data() -> None:
    with serve(api_key="s3cret", allow_origins=["https://page.example"]) as http:
        assert http.get("/health").text == "OK"
        for path in ("/", "/docs", "/docs/start.js", "/openapi.json"):
            assert http.get(path).status_code == 200
        for path in ("/ready", "/v1/models", "/metrics", "/nothing", "/health/", "/openapi.jsonx"):
            refused = http.get(path)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
            assert refused.headers["www-authenticate"] == "Bearer"
        assert http.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert http.get("/v1/models", headers={"authorization": "bearer s3cret"}).status_code == 200
        preflight = http.options(
            "/v1/models",
            headers={
                "origin": "https://page.example",
                "access-control-request-method": "GET",
                "access-control-request-headers": "authorization",
            },
        )
        assert preflight.headers["access-control-allow-origin"] == "https://page.example"


def test_a_websocket_needs_the_key_too() -> None:
    with serve(api_key="s3cret") as http:
        url = str(http.base_url).replace("http", "ws")
        for path in ("/", "/v1/realtime"):
            with pytest.raises(InvalidStatus) as refusal:
                connect(url + path, proxy=None)
            assert refusal.value.response.status_code == 401


def test_a_browser_brings_its_key_as_the_name_of_a_protocol() -> None:
    def offered(*names: str) -> list[Subprotocol]:
        return [Subprotocol(name) for name in names]

    with serve(api_key="s3cret/+") as http:
        url = str(http.base_url).replace("http", "ws")
        key = "openai-insecure-api-key.s3cret%2F%2B"
        with connect(url, subprotocols=offered(key, "whisper-live"), proxy=None) as socket:
            assert socket.subprotocol == "whisper-live"
        with connect(url, subprotocols=offered(key), proxy=None) as socket:
            assert socket.subprotocol is None, "the key is not sent back"
        with pytest.raises(InvalidStatus):
            connect(url, subprotocols=offered(f"{key}x", "whisper-live"), proxy=None)
    with serve() as http:  # a page may still keep a key that is needed no more
        url = str(http.base_url).replace("http", "ws")
        with connect(url, subprotocols=offered("whisper-live", key), proxy=None) as socket:
            assert socket.subprotocol == "whisper-live"


def test_unknown_routes_and_methods_answer_in_one_shape() -> None:
    with serve() as http:
        unknown = http.get("/nothing")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
        wrong = http.get("/v1/audio/transcriptions")
        assert wrong.status_code == 405
        assert wrong.json()["error"]["type"] == "invalid_request_error"
        assert wrong.headers["allow"] == "POST"
        assert http.get("/api/ps/base").headers["allow"] == "DELETE, POST"


def test_the_documentation_knows_every_field() -> None:
    with serve() as http:
        document = http.get("/openapi.json").json()
    body = document["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]
    properties = body["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"file", "model", "language", "prompt", "hotwords", "stream"} <= set(properties)
    assert "$ref" not in str(body)


def test_a_root_path_is_part_of_the_documentation() -> None:
    with serve(root_path="/whisper") as http:
        assert http.get("/openapi.json").json()["servers"] == [{"url": "/whisper"}]
