"""The JSON Schema says the same as the reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from autostart_proxy.config.model import Config, ServiceConfig, schema
from autostart_proxy.config.reader import parse
from autostart_proxy.errors import ConfigError

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


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the file that has keys of its own."""
    yield "", schema()
    yield from schema()["$defs"].items()


def all_keys() -> list[tuple[str, dict[str, Any]]]:
    return [pair for _, each in objects() for pair in each["properties"].items()]


def test_every_key_is_described() -> None:
    known = {"listen", "$schema", "level", "composeDir", "idleTimeout", "status"}
    assert known <= dict(all_keys()).keys()
    for key, inner in all_keys():
        assert inner["description"].endswith("."), key


@pytest.mark.parametrize("name", ["", "ServiceConfig", "HealthConfig"])
def test_every_example_is_read_and_fits_the_schema(name: str) -> None:
    checked = 0
    for key, inner in dict(objects())[name]["properties"].items():
        for example in inner.get("examples", []):
            keys: dict[str, Any] = {key: example}
            keys = {"health": keys} if name == "HealthConfig" else keys
            if key in ("command", "cwd", "env"):
                keys = {"composeDir": None, "command": ["x"], **keys}
            if key == "listenGroup":
                keys["listen"] = "unix:/run/autostart-proxy/http.sock"
            written = file_with(keys) if name else {**file_with({}), **keys}
            parse(json.dumps(written), source="c")
            assert fits(written), key
            checked += 1
    assert checked > 1


def test_a_file_with_every_default_written_out_means_the_same_as_one_without() -> None:
    whole = schema()

    def defaults(node: dict[str, Any]) -> dict[str, Any]:
        written = {}
        for key, inner in node["properties"].items():
            if "$ref" in inner and key != "defaults":
                written[key] = defaults(whole["$defs"][inner["$ref"].rpartition("/")[2]])
            elif "default" in inner:
                written[key] = inner["default"]
        return written

    shared = defaults(whole["$defs"]["ServiceConfig"])
    optional = ServiceConfig.model_fields.keys() - {"name", "proxy_port"}
    assert len(shared) == len(optional)
    assert shared["health"] == {"path": None, "status": "100-499"}
    written = {**defaults(whole), "defaults": shared, **file_with({})}
    assert written.keys() >= {"listen", "trustedProxies", "controlSocket", "log"}
    assert fits(written)
    silent = parse(json.dumps(file_with({})), source="c")
    assert parse(json.dumps(written), source="c") == silent


def test_the_schema_beside_the_example_is_up_to_date() -> None:
    """`autostart-proxy check --schema > config.schema.json` writes it anew."""
    root = Path(__file__).parents[2]
    assert json.loads((root / "config.schema.json").read_text()) == schema()
    example = (root / "config.json").read_text()
    assert fits(json.loads(example))
    assert isinstance(parse(example, source="config.json"), Config)
