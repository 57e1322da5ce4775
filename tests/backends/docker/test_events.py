"""The one subscription that all services share."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.backends.docker import events as events_module
from autostart_proxy.backends.docker.api import DockerClient
from autostart_proxy.backends.docker.events import Changes, Events, Signal
from tests.backends.docker.engine import ScriptedEngine, scripted_engine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
FOR_EVER = 60.0


def event(action: str, container: str = "abc", project: str = "p", **more: str) -> bytes:
    attributes = {"com.docker.compose.project": project, **more}
    told: dict[str, Any] = {"Action": action, "Actor": {"ID": container, "Attributes": attributes}}
    return json.dumps(told).encode() + b"\n"


def of(project: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda labels: labels.get("com.docker.compose.project") == project


P, Q = of("p"), of("q")


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


async def test_a_listener_is_woken_when_the_subscription_stands_and_by_what_it_wants_alone(
    engine: ScriptedEngine, events: Events
) -> None:
    engine.says([HEAD, 0.05, event("start", project="other"), 0.2, event("die"), FOR_EVER])
    changes = Changes()
    with events.listen(P, changes):
        assert await noted(changes), "what happened before has to be looked for"
        assert not await noted(changes, 0.1)
        assert await noted(changes)


async def test_all_listeners_share_one_subscription_which_ends_with_the_last(
    engine: ScriptedEngine, events: Events
) -> None:
    engine.says([HEAD, FOR_EVER], [HEAD, FOR_EVER])
    one, two = Changes(), Changes()
    with events.listen(P, one), events.listen(Q, two):
        assert await noted(one) and await noted(two)
    assert len(engine.asked) == 1
    with events.listen(P, one):
        assert await noted(one)
    assert len(engine.asked) == 2


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


async def test_what_was_sent_to_a_container_is_remembered_until_it_starts_again(
    engine: ScriptedEngine, events: Events
) -> None:
    engine.says(
        [
            HEAD,
            event("kill", "asked", signal="15"),
            event("kill", "reloaded", signal="1"),
            event("kill", "again", signal="9"),
            event("start", "again"),
            event("kill", "gone", signal="9"),
            event("destroy", "gone"),
            event("kill", "stranger", project="other", signal="15"),
            FOR_EVER,
        ]
    )
    changes = Changes()
    with events.listen(P, changes):
        await until(lambda: len(events.signals) == 2)
        await asyncio.sleep(0.05)
        now = asyncio.get_running_loop().time()
        assert {id: sent.number for id, sent in events.signals.items()} == {
            "asked": "15",
            "reloaded": "1",
        }
        assert isinstance(events.signals["asked"], Signal)
        assert now - 5 < events.signals["asked"].sent_at <= now
    assert events.signals == {}, "nobody listens: nothing is known"


@pytest.mark.parametrize(
    ("happened", "meddled"),
    [
        (event("kill", signal="15"), True),
        (event("kill", signal="1"), False),
        (event("stop"), True),
        (event("destroy"), True),
        (event("die"), False),
        (event("start"), False),
        (event("stop", project="q"), False),
    ],
)
async def test_others_at_work_are_noticed(
    engine: ScriptedEngine, events: Events, happened: bytes, meddled: bool
) -> None:
    engine.says([HEAD, happened, event("pause", "last"), FOR_EVER])
    with events.listen(P, Changes()), events.listen(Q, other := Changes()):
        assert await noted(other)
        await asyncio.sleep(0.05)
        now = asyncio.get_running_loop().time()
        assert (now - events.meddled_at(P) < 5) is meddled


async def test_own_work_is_no_meddling_until_it_is_over(
    engine: ScriptedEngine, events: Events
) -> None:
    work = [event("kill", signal="15"), event("die"), event("stop")]
    engine.says([HEAD, *work, 0.2, event("destroy"), FOR_EVER])
    events.own_work.add("abc")
    with events.listen(P, Changes()):
        await until(lambda: not events.own_work)
        assert events.meddled_at(P) < 0
        await until(lambda: events.meddled_at(P) > 0)


async def test_a_broken_stream_is_opened_again_and_told_once(
    engine: ScriptedEngine, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine.says(b"", b"", b"HTTP/1.1 500 Oh no\r\nContent-Length: 0\r\n\r\n", [HEAD, FOR_EVER])
    changes = Changes()
    with events.listen(P, changes):
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
