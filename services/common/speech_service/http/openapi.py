"""The description of requests and refusals in the OpenAPI document, made from forms and errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ..contract.errors import (
    EmptyFile,
    IncompleteFile,
    InvalidField,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    NoAudio,
    NoSpace,
    NotAudio,
    QueueFull,
    ShuttingDown,
    SpeechError,
    TooLarge,
    TooLong,
    TooSlow,
)


def openapi_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI description of a multipart body: a `file` and the form's fields."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return _multipart("file", _inlined(schema, definitions)["properties"])


def openapi_json(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI description of a form as a body in JSON."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    body = {"schema": _inlined(schema, schema.pop("$defs", {}))}
    return {"requestBody": {"required": True, "content": {"application/json": body}}}


def openapi_query(kind: type[BaseModel], file_field: str) -> dict[str, Any]:
    """Return the OpenAPI description of a form in the query, and a multipart body with a file."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = _inlined(schema, schema.pop("$defs", {}))["properties"]
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": field,
            **({"description": field["description"]} if "description" in field else {}),
        }
        for name, field in properties.items()
    ]
    return {"parameters": parameters, **_multipart(file_field, {})}


def _multipart(file_field: str, properties: dict[str, Any]) -> dict[str, Any]:
    file = {"type": "string", "format": "binary", "description": "audio or video"}
    fields = {name: _form_field(field) for name, field in properties.items()}
    schema = {
        "type": "object",
        "required": [file_field],
        "properties": {file_field: file, **fields},
    }
    filled = {
        name: field["examples"][0] for name, field in properties.items() if "examples" in field
    }
    body = {"schema": schema, "example": {file_field: "speech.wav", **filled}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": body}}}


def _form_field(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a field as a form carries it: what JSON calls null is left empty there.

    An empty field counts as absent. Saying so by an example keeps Swagger UI from filling the
    field with the word "string" when somebody tries the route.
    """
    if schema.get("default", ...) is not None:
        return schema
    kinds = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **rest, "examples": [""]}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Replace references by what they refer to: the body is described in one place."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def described(*kinds: type[SpeechError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that fails in these ways, an example for each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({kind.status for kind in kinds}):
        meanings = {
            kind: (kind.__doc__ or "").partition("\n")[0].strip().removesuffix(".")
            for kind in kinds
            if kind.status == status
        }
        examples = {
            kind.code: {"value": {"error": {"message": says, "type": kind.type, "code": kind.code}}}
            for kind, says in meanings.items()
        }
        responses[status] = {
            "description": "; or: ".join(meanings.values()),
            "content": {"application/json": {"schema": _SCHEMA, "examples": examples}},
        }
    return responses


SPEECH_ERRORS = described(
    InvalidRequest,
    EmptyFile,
    ModelNotFound,
    TooSlow,
    TooLarge,
    TooLong,
    NotAudio,
    IncompleteFile,
    InvalidField,
    NoAudio,
    QueueFull,
    ModelUnavailable,
    ShuttingDown,
    NoSpace,
)
"""How a route that takes a recording may refuse it."""
