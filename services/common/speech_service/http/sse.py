"""Server-sent events of a running transcription (WHATWG HTML, section 9.2).

Events carry no name, only data, as OpenAI's do. Once the first byte is sent a failure can no longer
be a status, so it is an event.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..contract.errors import SpeechError
from ..work.job import Job
from .disconnect import disconnected
from .refusals import translated

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0
"""Silence after which a comment is sent, so that no proxy takes the stream for dead."""


def event(data: Any) -> bytes:
    """Return one event; what is no text already is written as JSON."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return ("".join(f"data: {line}\n" for line in text.splitlines() or [""]) + "\n").encode()


class EventStream(StreamingResponse):
    """Streams a job's events; the job is cancelled when the client leaves."""

    def __init__(self, events: AsyncIterator[bytes], job: Job) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_guarded(events), headers=headers, media_type="text/event-stream")
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streaming = asyncio.ensure_future(self.stream_response(send))
        leaving = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((streaming, leaving), return_when=asyncio.FIRST_COMPLETED)
            if streaming.done():
                streaming.result()
        finally:
            self._job.cancel()
            for task in (streaming, leaving):
                task.cancel()
            await asyncio.gather(streaming, leaving, return_exceptions=True)


async def _guarded(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Add comments to silence, and turn a failure into the last event."""
    upcoming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait((upcoming,), timeout=KEEP_ALIVE_SECONDS)
            if not done:
                yield b": waiting\n\n"
                continue
            data = upcoming.result()
            if data is None:
                return
            yield data
            upcoming = asyncio.ensure_future(anext(events, None))
    except Exception as error:
        if not isinstance(error, SpeechError):
            log.exception("stream failed")
        yield event(translated(error).as_openai())
    finally:
        upcoming.cancel()
