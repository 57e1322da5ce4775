"""The Compose backend and an engine that is gone, silent, or answers wrongly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from autostart_proxy.backends import Backend
from autostart_proxy.backends.compose import starting
from autostart_proxy.errors import (
    BackendRefused,
    BackendUnreachable,
    DockerUnavailable,
    StartFailed,
    StopFailed,
)
from tests.backends import programs
from tests.backends.contract import (
    eventually,
    get,
    ignore,
    order_exit,
    refusal_of,
    until,
    watching,
)
from tests.backends.faulty_socket import FaultySocket
from tests.backends.stack import Stack

pytestmark = pytest.mark.docker

REFUSED = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
OH_NO = b'{"message": "oh no"}'


@pytest_asyncio.fixture
async def sick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultySocket]:
    """A socket between the backend and the engine."""
    relay = FaultySocket(tmp_path / "docker.sock")
    await relay.appear()
    monkeypatch.setenv("DOCKER_HOST", relay.address)
    yield relay
    monkeypatch.delenv("DOCKER_HOST")
    await relay.vanish()


@pytest.mark.parametrize("warm", [False, True])
async def test_an_engine_that_is_gone_is_told_within_five_seconds_and_found_again(
    sick: FaultySocket, make: Callable[[str], Backend], warm: bool
) -> None:
    backend = make(programs.gentle())
    if warm:
        await backend.start(ignore)
        await backend.stop(1)
    await sick.vanish()
    for call in (backend.start(ignore), backend.observe()):
        async with asyncio.timeout(60):
            with pytest.raises(BackendUnreachable, match="docker.sock"):
                await call
    await sick.appear()
    assert await get(await backend.start(ignore))


@pytest.mark.parametrize("warm", [False, True])
async def test_an_engine_that_never_answers_is_given_up_without_blocking_anything(
    sick: FaultySocket, make: Callable[[str], Backend], warm: bool
) -> None:
    backend = make(programs.gentle())
    if warm:
        await backend.start(ignore)
        await backend.stop(1)
    sick.mute = True
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.05)

    beating = asyncio.ensure_future(beat())
    async with asyncio.timeout(60):
        with pytest.raises(BackendUnreachable, match="did not answer in time"):
            await backend.start(ignore)
    beating.cancel()
    assert max(b - a for a, b in zip(beats, beats[1:], strict=False)) < 1
    sick.mute = False
    await sick.cut(lambda line: True)
    assert await get(await backend.start(ignore))


async def test_a_broken_event_stream_is_opened_again_and_nothing_is_missed(
    sick: FaultySocket, stack: Stack, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    upstream = await backend.start(ignore)
    await get(upstream)
    async with watching(backend) as seen:
        assert (await anext(seen)).running
        await eventually(lambda: any("/events" in line for line in sick.asked))
        sick.cut_events_at_once = True
        await sick.cut()
        await order_exit(upstream, 9)
        sick.cut_events_at_once = False
        async with asyncio.timeout(60):
            while (observation := await anext(seen)).exit is None:
                pass
        assert observation.exit.code == 9


async def test_an_event_stream_that_always_breaks_costs_next_to_nothing(
    sick: FaultySocket, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    watch = asyncio.ensure_future(until(backend, lambda seen: seen.exit is not None, 60))
    sick.cut_events_at_once = True
    await sick.cut()
    sick.asked.clear()
    began, used = time.monotonic(), time.process_time()
    await asyncio.sleep(6)
    share = (time.process_time() - used) / (time.monotonic() - began)
    watch.cancel()
    tries = sum("/events" in line for line in sick.asked)
    assert 3 <= tries <= 9
    assert share < 0.05


async def test_a_start_of_what_runs_already_is_a_success(
    sick: FaultySocket, stack: Stack, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    await backend.stop(1)
    await stack.compose("start")
    sick.answer_instead("POST .*/start", b"HTTP/1.1 304 Not Modified\r\n\r\n")
    assert await get(await backend.start(ignore))


async def test_a_refused_start_is_told_with_the_call_and_tried_afresh(
    sick: FaultySocket, stack: Stack, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    await backend.stop(1)
    id = await stack.inspect("app", ".Id")
    sick.answer_instead("POST .*/start", REFUSED % b"500 Internal Server Error" + OH_NO)
    reason = await refusal_of(backend)
    assert isinstance(reason, StartFailed)
    assert reason.detail == f"oh no (POST /containers/{id}/start: 500)"
    assert await get(await backend.start(ignore))


async def test_a_refusal_that_may_pass_is_waited_for(
    sick: FaultySocket, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    await backend.stop(1)
    for _ in range(3):
        sick.answer_instead("POST .*/start", REFUSED % b"409 Conflict" + OH_NO)
    assert await get(await backend.start(ignore))


async def test_a_refusal_that_does_not_pass_is_told(
    sick: FaultySocket, make: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_PATIENCE_SECONDS", 1.0)
    backend = make(programs.gentle())
    await backend.start(ignore)
    await backend.stop(1)
    for _ in range(20):
        sick.answer_instead("POST .*/start", REFUSED % b"409 Conflict" + OH_NO)
    reason = await refusal_of(backend)
    assert isinstance(reason, StartFailed)
    assert "oh no (POST /containers/" in reason.detail


@pytest.mark.parametrize("status", [b"403 Forbidden", b"500 Internal Server Error"])
async def test_a_look_that_only_saves_time_may_fail(
    sick: FaultySocket, make: Callable[[str], Backend], status: bytes
) -> None:
    backend = make(programs.gentle())
    for _ in range(8):
        sick.answer_instead("GET /images/", REFUSED % status + OH_NO)
    for _ in range(2):
        assert await get(await backend.start(ignore))
        await backend.stop(1)


async def test_a_refused_stop_is_told_as_a_stop(
    sick: FaultySocket, stack: Stack, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    sick.answer_instead("POST .*/stop", REFUSED % b"500 Internal Server Error" + OH_NO)
    with pytest.raises(BackendRefused) as refusal:
        await backend.stop(1)
    assert isinstance(refusal.value.reason, StopFailed)
    assert refusal.value.reason.detail.startswith("oh no (POST /containers/")
    await backend.stop(1)
    assert await stack.status("app") == "exited"


async def test_a_container_that_vanishes_between_look_and_start_is_made_anew(
    sick: FaultySocket, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    await backend.stop(1)
    sick.answer_instead("POST .*/start", REFUSED % b"404 Not Found" + OH_NO)
    assert await get(await backend.start(ignore))


@pytest.mark.parametrize("what", ["/containers/json", "/containers/[0-9a-f]+/json"])
async def test_a_cut_answer_is_told_and_asked_for_again(
    sick: FaultySocket, make: Callable[[str], Backend], what: str
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    await backend.stop(1)
    sick.answer_instead(what, None)
    with pytest.raises(BackendUnreachable):
        await backend.start(ignore)
    assert await get(await backend.start(ignore))


async def test_an_address_that_cannot_be_used_is_told_with_the_cure(
    make: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    backend = make(programs.gentle())
    with pytest.raises(BackendUnreachable, match="use unix:///path"):
        await backend.observe()


async def test_a_stop_that_reaches_nobody_differs_from_one_that_is_not_answered(
    sick: FaultySocket, stack: Stack, make: Callable[[str], Backend]
) -> None:
    backend = make(programs.gentle())
    await backend.start(ignore)
    await sick.vanish()
    with pytest.raises(BackendUnreachable):
        await backend.stop(1)
    await sick.appear()
    sick.answer_instead("POST .*/stop", None)
    with pytest.raises(BackendRefused) as refusal:
        await backend.stop(1)
    assert isinstance(refusal.value.reason, DockerUnavailable)
    assert await stack.status("app") == "exited"
