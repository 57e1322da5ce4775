"""Configuration files for tests, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autostart_proxy.config.model import Config
from autostart_proxy.config.reader import parse
from autostart_proxy.errors import ConfigError


def service(**keys: Any) -> dict[str, Any]:
    return {"composeDir": "/opt/a", "proxyPort": 8001, **keys}


def parsed(*, services: dict[str, Any], **top: Any) -> Config:
    return parse(json.dumps({**top, "services": services}), source="config.json")


def problems(text: str, source: str = "config.json") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, source=source)
    return caught.value.problems


def problem(*, services: Any, **top: Any) -> str:
    """The only problem of a file in one line, without the place."""
    [line] = problems(json.dumps({**top, "services": services}))
    place, _, words = line.partition(": ")
    assert place.startswith("config.json:1:")
    return words
