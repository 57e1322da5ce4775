"""The API key: who needs one, and how it may be brought."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from ...harness import serve


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
        basic = {"authorization": "Basic eW91OnNlY3JldA=="}
        for headers, status in (
            ({"x-api-key": "s3cret"}, 200),
            ({"x-api-key": "s3cret", **basic}, 200),
            ({"x-api-key": "wrong", "authorization": "Bearer s3cret"}, 200),
            ({"x-api-key": "wrong"}, 401),
            ({"x-api-key": ""}, 401),
            ({"x-api-key": "Bearer s3cret"}, 401),
            ({"authorization": "Basic s3cret"}, 401),
        ):
            assert http.get("/v1/models", headers=headers).status_code == status
        preflight = http.options(
            "/v1/models",
            headers={
                "origin": "https://page.example",
                "access-control-request-method": "GET",
                "access-control-request-headers": "authorization",
            },
        )
        assert preflight.headers["access-control-allow-origin"] == "https://page.example"


def test_a_browser_without_the_key_is_refused_with_403() -> None:
    """A 401 would make it forget the password of the site in front."""
    browser = {"sec-fetch-mode": "cors"}
    with serve(api_key="s3cret") as http:
        for headers, status in (
            (browser, 403),
            ({**browser, "x-api-key": "wrong"}, 403),
            ({**browser, "authorization": "Basic eW91OnNlY3JldA=="}, 403),
            ({**browser, "authorization": "Bearer wrong"}, 401),
            ({**browser, "x-api-key": "s3cret"}, 200),
        ):
            answer = http.get("/v1/models", headers=headers)
            assert answer.status_code == status
            assert ("www-authenticate" in answer.headers) == (status == 401)
            if status != 200:
                assert answer.json()["error"]["code"] == "invalid_api_key"


def test_a_websocket_needs_the_key_too() -> None:
    with serve(api_key="s3cret") as http:
        url = str(http.base_url).replace("http", "ws")
        for path in ("/", "/v1/realtime"):
            with pytest.raises(InvalidStatus) as refusal:
                connect(url + path, proxy=None)
            assert refusal.value.response.status_code == 401
            with connect(url + path, additional_headers={"X-Api-Key": "s3cret"}, proxy=None):
                pass


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
