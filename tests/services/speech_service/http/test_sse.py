"""Server-sent events: how they are written, what keeps them alive, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from speech_service.contract.errors import ModelUnavailable
from speech_service.http import sse
from speech_service.http.sse import EventStream, event
from speech_service.work.job import Job
from starlette.types import Message

MS = 0.001


class Running:
    """A job of which only its end matters here."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


async def streamed(events: AsyncIterator[bytes], leaves: bool = False) -> tuple[bytes, Running]:
    """What a client receives of a stream, that may leave after its first event."""
    job, gone = Running(), asyncio.Event()
    bodies: list[bytes] = []

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        bodies.append(message.get("body", b""))
        if leaves and bodies[-1]:
            gone.set()

    scope: dict[str, Any] = {"type": "http"}
    await EventStream(events, cast("Job", job))(scope, receive, send)
    return b"".join(bodies), job


@pytest.mark.parametrize(
    ("data", "written"),
    [
        ({"delta": "ü"}, 'data: {"delta": "ü"}\n\n'),
        ("one line", "data: one line\n\n"),
        ("1\n00:00 --> 00:01\nHi\n\n", "data: 1\ndata: 00:00 --> 00:01\ndata: Hi\ndata: \n\n"),
        ("", "data: \n\n"),
    ],
)
def test_an_event_is_its_data_line_by_line(data: Any, written: str) -> None:
    assert event(data) == written.encode()


async def test_events_arrive_as_they_are_and_the_job_is_let_go() -> None:
    async def events() -> AsyncIterator[bytes]:
        yield event("one")
        yield event("two")

    written, job = await streamed(events())
    assert written == b"data: one\n\ndata: two\n\n"
    assert job.cancelled


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 10 * MS)

    async def events() -> AsyncIterator[bytes]:
        await asyncio.sleep(35 * MS)
        yield event("late")

    written, _ = await streamed(events())
    *comments, last = written.decode().split("\n\n")[:-1]
    assert last == "data: late"
    assert len(comments) >= 2
    assert set(comments) == {": waiting"}


async def test_a_client_that_leaves_ends_the_job_and_the_stream() -> None:
    ended = asyncio.Event()

    async def events() -> AsyncIterator[bytes]:
        try:
            yield event("one")
            await asyncio.Event().wait()
        finally:
            ended.set()

    written, job = await streamed(events(), leaves=True)
    assert written == b"data: one\n\n"
    assert job.cancelled
    assert ended.is_set()


@pytest.mark.parametrize(
    ("error", "code", "logged"),
    [
        (ModelUnavailable("set HF_TOKEN", "hf_token_missing"), "hf_token_missing", False),
        (RuntimeError("/secret/path"), "internal_error", True),
    ],
)
async def test_a_failure_is_the_last_event(
    error: Exception, code: str, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def events() -> AsyncIterator[bytes]:
        yield event("one")
        raise error

    written, _ = await streamed(events())
    last = json.loads(written.decode().strip().rpartition("data: ")[2])
    assert last["error"]["code"] == code
    assert b"secret" not in written
    assert ("/secret/path" in caplog.text) == logged
