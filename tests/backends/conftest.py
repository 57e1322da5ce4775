"""Which event loops the backends are tested on, and what containers are tested with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from autostart_proxy.backends import Backend
from autostart_proxy.backends.compose.backend import ComposeBackend, open_backends
from autostart_proxy.config.model import ServiceConfig
from tests.backends.stack import Stack, Start, program, published
from tests.ports import free_port


@pytest.hookimpl
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops where they differ, which is in how they start and reap processes."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "uvloop": uvloop.new_event_loop
    }
    if item.get_closest_marker("docker") is None:
        factories["asyncio"] = asyncio.new_event_loop
    return factories


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    yield made
    made.down()


@pytest_asyncio.fixture
async def service(stack: Stack, port: int) -> AsyncIterator[Start]:
    """Make a backend for the stack; keys are those of `ServiceConfig`."""
    made: list[ComposeBackend] = []
    open_once = cache(open_backends)  # only now, when the test has set its environment

    def make_one(**keys: Any) -> ComposeBackend:
        usual: dict[str, Any] = {
            "name": "test",
            "compose_dir": stack.folder,
            "proxy_port": port,
        }
        made.append(open_once()("test.example", ServiceConfig(**usual | keys)))
        return made[-1]

    yield make_one
    for backend in made:
        await backend.close()


@pytest.fixture
def make(stack: Stack, service: Start, port: int) -> Callable[[str], Backend]:
    """What the contract makes services with; backends without containers have their own."""

    def make_one(source: str) -> Backend:
        stack.write(app=program(source) | published(port))
        return service()

    return make_one
