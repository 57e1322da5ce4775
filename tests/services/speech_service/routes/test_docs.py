"""The description of the API: complete, and usable in a browser that reaches no other host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from ... import media
from ...browser import DESK, below, browser
from ...harness import serve

TRANSCRIPTIONS = "#operations-OpenAI_audio-transcriptions_v1_audio_transcriptions_post"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with serve() as http:
        described: dict[str, Any] = http.get("/openapi.json").json()
    return described


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def contents(document: dict[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each body of a request or of the responses, with where it stands and how it is described."""
    for name, operation in operations(document):
        if kind == "requestBody":
            parts = {"request": operation["requestBody"]} if kind in operation else {}
        else:
            parts = operation[kind]
        for part, described in parts.items():
            for media_type, content in described.get("content", {}).items():
                yield f"{name} {part} {media_type}", content


def has_example(document: dict[str, Any], content: dict[str, Any]) -> bool:
    schema = content.get("schema", {})
    if reference := schema.get("$ref"):
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    return "example" in content or "examples" in content or "example" in schema


@pytest.mark.parametrize("kind", ["requestBody", "responses"])
def test_every_body_has_an_example(document: dict[str, Any], kind: str) -> None:
    found = list(contents(document, kind))
    assert len(found) >= 6
    assert [where for where, content in found if not has_example(document, content)] == []


def test_every_route_that_can_refuse_shows_how(document: dict[str, Any]) -> None:
    silent = [
        name
        for name, operation in operations(document)
        if not any(status[0] in "45" for status in operation["responses"])
    ]
    assert silent == ["get /v1/models", "get /api/ps", "get /health", "get /metrics"]


def test_errors_are_described_in_the_shape_they_have(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/audio/transcriptions"]["post"]["responses"]
    with serve() as http:
        answer = http.post("/v1/audio/transcriptions", files={"file": b""})
    examples = responses["400"]["content"]["application/json"]["examples"]
    shown = examples["empty_file"]["value"]["error"]
    real = answer.json()["error"]
    assert (shown["type"], shown["code"]) == (real["type"], real["code"])
    assert shown.keys() < real.keys()
    assert "HTTPValidationError" not in str(document)


def test_the_key_is_part_of_the_description_where_one_is_needed(document: dict[str, Any]) -> None:
    assert "securitySchemes" not in document.get("components", {})
    with serve(api_key="s3cret") as http:
        locked = http.get("/openapi.json").json()
    ways = locked["components"]["securitySchemes"]
    assert (ways["ApiKey"]["scheme"], ways["ApiKeyHeader"]["name"]) == ("bearer", "X-Api-Key")
    for name, route in operations(locked):
        assert name == "get /health" or route["security"] == [{way: []} for way in ways]
    open_routes = [name for name, route in operations(locked) if "security" not in route]
    assert open_routes == ["get /health"]
    assert "s3cret" not in str(locked)


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


@pytest.mark.parametrize(
    ("path", "field"), [("", "auth-bearer-value"), ("/whisper", "api_key_value")]
)
def test_a_route_is_tried_in_the_browser(path: str, field: str) -> None:
    with (
        serve(api_key="s3cret", root_path=path) as http,
        below(http, path) as address,
        browser(f"{address}/docs", screen=DESK) as page,
    ):
        page.get_by_role("button", name="Authorize").click()
        way = page.locator(".auth-container form").filter(has=page.locator(f"#{field}"))
        way.locator("input").fill("s3cret")
        way.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close", exact=True).first.click()
        operation = page.locator(TRANSCRIPTIONS)
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.locator("input[type=file]").set_input_files(
            {"name": "a.wav", "mimeType": "audio/wav", "buffer": media.tone()}
        )
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .response")
        expect(answer.locator(".response-col_status")).to_contain_text("200")
        expect(answer).to_contain_text("one two three four five")
