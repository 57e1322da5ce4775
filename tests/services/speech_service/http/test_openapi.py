"""What the OpenAPI document says of a form and of refusals."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field
from speech_service.contract.errors import EmptyFile, InvalidRequest, QueueFull
from speech_service.http.openapi import described, openapi_body, openapi_json, openapi_query


class Part(BaseModel):
    kind: Literal["a"] = "a"


class Form(BaseModel):
    model: str | None = Field(default=None, examples=["base"])
    parts: list[Part] = []
    either: Literal["auto"] | Part | None = None
    needed: int


def test_a_body_is_a_file_and_the_fields_of_its_form() -> None:
    content = openapi_body(Form)["requestBody"]["content"]["multipart/form-data"]
    assert content["schema"]["required"] == ["file"]
    properties = content["schema"]["properties"]
    assert list(properties) == ["file", "model", "parts", "either", "needed"]
    assert properties["file"]["format"] == "binary"
    assert properties["needed"]["type"] == "integer"
    assert "$ref" not in str(content), "everything is described where it stands"
    assert content["example"] == {"file": "speech.wav", "model": "base"}


def test_a_field_that_may_be_left_out_is_left_empty() -> None:
    content = openapi_body(Form)["requestBody"]["content"]["multipart/form-data"]
    properties = content["schema"]["properties"]
    assert properties["model"] == {"type": "string", "title": "Model", "examples": [""]}
    assert [choice.get("type") for choice in properties["either"]["anyOf"]] == ["string", "object"]
    assert properties["either"]["examples"] == [""]


class Query(BaseModel):
    output: Literal["txt", "srt"] = Field(default="txt", description="how to answer")
    encode: bool = True


def test_a_form_may_come_in_the_query_beside_a_file() -> None:
    described = openapi_query(Query, "audio_file")
    output, encode = described["parameters"]
    assert (output["name"], output["in"], output["required"]) == ("output", "query", False)
    assert output["schema"]["enum"] == ["txt", "srt"]
    assert output["description"] == "how to answer" and "description" not in encode
    content = described["requestBody"]["content"]["multipart/form-data"]
    assert list(content["schema"]["properties"]) == ["audio_file"]
    assert content["example"] == {"audio_file": "speech.wav"}


def test_refusals_of_one_status_are_told_together() -> None:
    responses = described(QueueFull, EmptyFile, InvalidRequest)
    assert list(responses) == [400, 429]
    assert responses[400]["description"] == (
        "The uploaded file has no bytes; or: The request can never succeed as it is"
    )
    examples = responses[400]["content"]["application/json"]["examples"]
    assert examples["empty_file"]["value"]["error"]["message"] == "The uploaded file has no bytes"
    assert list(examples) == ["empty_file", "invalid_request"]


def test_a_form_may_be_a_body_in_json() -> None:
    body = openapi_json(Form)["requestBody"]
    assert body["required"]
    schema = body["content"]["application/json"]["schema"]
    assert schema["required"] == ["needed"]
    assert schema["properties"]["parts"]["items"]["properties"]["kind"]["const"] == "a"
