"""The JSON Schema says the same as the reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from autostart_proxy.config import parse
from autostart_proxy.errors import ConfigError
from autostart_proxy.keys import Config, ServiceConfig, rows, schema

GOOD: list[dict[str, Any]] = [
    {},
    {"idleTimeout": None, "startTimeout": "1h30m", "stopTimeout": 0},
    {"containers": ["a"], "maxBody": "500MB", "maxHeld": 1, "blocking": "auto"},
    {"health": {"path": None, "status": ["200-299", 401]}, "aliases": ["b"]},
]
BAD: list[dict[str, Any]] = [
    {"idletimeout": 3},
    {"startTimeout": 0},
    {"startTimeout": "30"},
    {"startTimeout": None},
    {"idleTimeout": True},
    {"maxBody": "500M"},
    {"maxHeld": 0},
    {"proxyPort": 65536},
    {"blocking": "Auto"},
    {"containers": []},
    {"containers": ["-f"]},
    {"composeDir": "../x"},
    {"health": {"path": "x"}},
    {"health": {"status": 99}},
    {"health": {"url": "/"}},
    {"env": {"A B": "x"}},
    {"env": {"A": 1}},
    {"aliases": "b"},
]


def file_with(keys: dict[str, Any]) -> dict[str, Any]:
    return {"services": {"a": {"composeDir": "/opt/a", "proxyPort": 8001, **keys}}}


def fits(instance: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema()).is_valid(instance))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("keys", GOOD, ids=str)
def test_what_the_reader_takes_fits_the_schema(keys: dict[str, Any]) -> None:
    parse(json.dumps(file_with(keys)), source="c")
    assert fits(file_with(keys))


@pytest.mark.parametrize("keys", BAD, ids=str)
def test_what_the_reader_refuses_does_not_fit_the_schema(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse(json.dumps(file_with(keys)), source="c")
    assert not fits(file_with(keys))


def test_services_are_required_and_a_schema_may_be_named() -> None:
    assert not fits({})
    assert fits({"services": {}, "$schema": "./config.schema.json", "defaults": {"env": {}}})


def described(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, inner in node.get("properties", {}).items():
        yield key, inner
        yield from described(inner)


def all_keys() -> list[tuple[str, dict[str, Any]]]:
    whole = schema()
    return [*described(whole), *described(whole["$defs"]["service"])]


def test_every_key_is_described() -> None:
    assert {"listen", "$schema", "level", "composeDir", "idleTimeout"} <= dict(all_keys()).keys()
    for key, inner in all_keys():
        assert inner["description"].endswith("."), key


@pytest.mark.parametrize("struct", [Config, ServiceConfig])
def test_written_defaults_and_examples_are_read_as_what_they_stand_for(struct: type) -> None:
    whole = schema()
    properties = (whole if struct is Config else whole["$defs"]["service"])["properties"]
    for key, row in rows(struct).items():
        if row.key.form is None:
            continue
        written = properties[key]
        for example in written.get("examples", []):
            row.key.form.read(example)
            assert jsonschema.Draft202012Validator(written).is_valid(example), key


def test_a_file_with_every_default_written_out_means_the_same_as_one_without() -> None:
    whole = schema()

    def defaults(node: dict[str, Any]) -> dict[str, Any]:
        return {
            key: defaults(inner) if "properties" in inner else inner["default"]
            for key, inner in node["properties"].items()
            if "default" in inner or "properties" in inner
        }

    shared = defaults(whole["$defs"]["service"])
    assert {"idleTimeout", "health", "aliases", "maxBody"} <= shared.keys()
    written = {**defaults(whole), "defaults": shared, **file_with({})}
    assert fits(written)
    silent = parse(json.dumps(file_with({})), source="c")
    assert parse(json.dumps(written), source="c") == silent
