"""Every call of the engine stands in docs/security.md, for those who filter them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import programs
from tests.backends.compose.test_backend_faults import sick  # noqa: F401 - a fixture
from tests.backends.contract import get, ignore, order_exit, until
from tests.backends.faulty_socket import FaultySocket
from tests.backends.stack import Stack, Start, program, published

PAGE = Path(__file__).parents[3] / "docs" / "security.md"

_PLACEHOLDERS = (
    (r"^/v\d\.\d+/", "/"),
    (r"^/images/.+/json$", "/images/NAME/json"),
    (r"^/(containers|networks|volumes|exec)/(?!json$|create$|prune$)[^/]+", r"/\1/ID"),
)


def networked(service: dict[str, Any]) -> dict[str, Any]:
    """A service in the project's own network."""
    return {key: value for key, value in service.items() if key != "network_mode"}


def called(heads: list[bytes], *, by_compose: bool) -> Iterator[str]:
    """The calls as the page writes them; the proxy itself does not say what program it is."""
    for head in heads:
        if (b"user-agent:" in head.lower()) is by_compose:
            method, target = head.decode("latin-1").split(" ")[:2]
            path = target.partition("?")[0]
            for pattern, instead in _PLACEHOLDERS:
                path = re.sub(pattern, instead, path)
            yield f"{method} {path}"


def listed(table: int) -> set[str]:
    """The calls in one of the page's tables of calls."""
    tables = re.findall(r"^\| call \|.*\n(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE)
    return set(re.findall(r"`([A-Z]+ /[^`]*)`", tables[table]))


@pytest.mark.docker
async def test_each_call_of_a_services_life_is_listed_and_each_of_our_own_is_made(
    sick: FaultySocket,  # noqa: F811
    stack: Stack,
    service: Start,
    port: int,
) -> None:
    app = networked(program(programs.gentle())) | published(port) | {"depends_on": ["db"]}
    db = networked(program(programs.SLEEPS)) | {"volumes": ["data:/data"]}
    project = {"services": {"app": app, "db": db}, "volumes": {"data": {}}}
    stack.write_text("compose.yaml", json.dumps(project))
    backend = service()
    await get(await backend.start(ignore))
    await backend.stop(1)
    app["environment"] = {"CHANGED": "1"}
    stack.write_text("compose.yaml", json.dumps(project))
    await get(await backend.start(ignore))
    await stack.docker("pause", "app")
    upstream = await backend.start(ignore)
    await order_exit(upstream, 3)
    await until(backend, lambda seen: seen.exit is not None)
    assert set(called(sick.heads, by_compose=False)) == listed(0)
    by_compose = set(called(sick.heads, by_compose=True))
    assert "POST /containers/create" in by_compose
    assert by_compose <= listed(1)
