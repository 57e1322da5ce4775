"""The one subscription that all services share."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.backends.docker import events as events_module
from autostart_proxy.backends.docker.api import DockerClient
from autostart_proxy.backends.docker.events import Changes, Events
from tests.backends.docker.engine import ScriptedEngine, scripted_engine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
FOR_EVER = 60.0


def event(action: str, container: str = "abc", project: str = "p", **more: str) -> bytes:
    attributes = {"com.docker.compose.project": project, **more}
    told: dict[str, Any] = {"Action": action, "Actor": {"ID": container, "Attributes": attributes}}
    return json.dumps(told).encode() + b"\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(events_module, "LONGEST_PAUSE_SECONDS", 0.04)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(tmp_path) as engine:
        yield engine


@pytest.fixture
def events(engine: ScriptedEngine) -> Events:
    return Events(DockerClient(engine.address))


async def noted(changes: Changes, within_seconds: float = 5.0) -> bool:
    """Whether something is noted in time; takes it."""
    waiting = asyncio.ensure_future(changes.wait())
    done, _ = await asyncio.wait([waiting], timeout=within_seconds)
    waiting.cancel()
    return bool(done)


async def test_a_listener_is_woken_when_the_subscription_stands_and_by_its_project_alone(
    engine: ScriptedEngine, events: Events
) -> None:
    engine.says([HEAD, 0.05, event("start", project="other"), 0.2, event("die"), FOR_EVER])
    changes = Changes()
    with events.listen("p", changes):
        assert await noted(changes), "what happened before has to be looked for"
        assert not await noted(changes, 0.1)
        assert await noted(changes)


async def test_all_listeners_share_one_subscription_which_ends_with_the_last(
    engine: ScriptedEngine, events: Events
) -> None:
    engine.says([HEAD, FOR_EVER], [HEAD, FOR_EVER])
    one, two = Changes(), Changes()
    with events.listen("p", one), events.listen("q", two):
        assert await noted(one) and await noted(two)
    assert len(engine.asked) == 1
    with events.listen("p", one):
        assert await noted(one)
    assert len(engine.asked) == 2


async def test_who_ended_a_container_is_remembered_until_it_starts_again(
    engine: ScriptedEngine, events: Events
) -> None:
    engine.says(
        [
            HEAD,
            event("kill", "asked", signal="15"),
            event("kill", "reloaded", signal="1"),
            event("kill", "again", signal="9"),
            event("start", "again"),
            event("kill", "stranger", project="other", signal="15"),
            FOR_EVER,
        ]
    )
    changes = Changes()
    with events.listen("p", changes):
        async with asyncio.timeout(5):
            while events.told_to_end != {"asked"}:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert events.told_to_end == {"asked"}
    assert events.told_to_end == set(), "nobody listens: nothing is known"


async def test_a_broken_stream_is_opened_again_and_told_once(
    engine: ScriptedEngine, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine.says(b"", b"", b"HTTP/1.1 500 Oh no\r\nContent-Length: 0\r\n\r\n", [HEAD, FOR_EVER])
    changes = Changes()
    with events.listen("p", changes):
        assert await noted(changes)
    messages = [record.message for record in caplog.records]
    assert messages == ["event stream broken", "event stream stands again"]
    assert len(engine.asked) == 4


async def test_a_change_is_noted_once_however_often_it_is_told() -> None:
    changes = Changes()
    changes.note()
    changes.note()
    assert await noted(changes)
    assert not await noted(changes, 0.02)
    await changes.wait(0.01)  # a limit is no error
