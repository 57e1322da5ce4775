"""Live transcription as WhisperLive has it (github.com/collabora/WhisperLive): `WS /`.

A JSON greeting comes in, then binary float32, int16 or uint8 samples, 16 kHz mono; segments go out
as they are heard, also those after the end of the audio. Clients drop every message that does not
carry the greeting's `uid` as they sent it.
"""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import ExitStack, suppress
from typing import Annotated, Any

from fastapi import APIRouter
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..contract.errors import InvalidField, InvalidRequest, QueueFull, SpeechError
from ..contract.languages import LanguageCode
from ..contract.transcript import Options, Segment, Task
from ..http.auth import chosen_protocol
from ..http.forms import json_object, parse
from ..http.intake import Service
from ..http.sockets import (
    GREETING_SECONDS,
    Inbox,
    Patience,
    SampleKind,
    converse,
    orderly,
    receive_samples,
)
from ..http.spellings import Form, FreeText
from ..media.utterances import Pace
from ..work.live import Failed, Heard, LiveSession
from ..work.service import SpeechService

router = APIRouter()

_LONGEST_UID = 1000
_NOTHING = {"start": "0.000", "end": "0.000", "text": "", "completed": True}
"""What is said to have been heard where words that were shown turned out to be none."""


class Greeting(Form):
    """What the first message of a WhisperLive client asks for."""

    language: LanguageCode = None
    task: Task = "transcribe"
    model: str | None = None
    initial_prompt: Annotated[str | None, FreeText()] = None
    hotwords: Annotated[str | None, FreeText(", ", is_list=True)] = None
    send_last_n_segments: int = 10
    audio_format: SampleKind = "float32"


@router.websocket("/")
async def whisper_live(websocket: WebSocket, service: Service) -> None:
    """Speak WhisperLive's protocol."""
    await websocket.accept(chosen_protocol(websocket))
    uid: Any = ""
    async with orderly(websocket, lambda error: _status(uid, error)):
        with ExitStack() as held:
            full = _refused(held, service)
            inbox = Inbox(websocket)
            fields = _fields(await Patience(GREETING_SECONDS).receive(inbox))
            uid = _identity(fields.get("uid"))
            if full:
                raise full
            greeting = parse(Greeting, fields)
            await _WhisperLive(websocket, inbox, service, uid, greeting).run()


def _refused(held: ExitStack, service: SpeechService) -> QueueFull | None:
    """Take a place for a session; why there is none is told once the client has said its name."""
    try:
        held.enter_context(service.live_sessions.one())
    except QueueFull as error:
        return error
    return None


def _status(uid: Any, error: SpeechError) -> str:
    if isinstance(error, QueueFull):
        minutes = math.ceil(error.retry_after / 60)
        return json.dumps({"uid": uid, "status": "WAIT", "message": minutes})
    return json.dumps({"uid": uid, "status": "ERROR", "message": error.message})


def _identity(uid: Any) -> Any:
    """Return what a client calls itself, which every message to it repeats.

    Raises:
        InvalidField: it is nothing short.
    """
    with suppress(RecursionError):
        if len(json.dumps(uid)) <= _LONGEST_UID:
            return uid
    raise InvalidField(f"uid may have up to {_LONGEST_UID} characters", "uid")


def _fields(message: Message | None) -> dict[str, Any]:
    """Return the fields of a greeting.

    Raises:
        InvalidRequest: it is no JSON object, or none came in time.
        WebSocketDisconnect: the client has left.
    """
    if message is None:
        raise InvalidRequest(f"no greeting came within {GREETING_SECONDS:g} seconds")
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    text, data = message.get("text"), message.get("bytes")
    return json_object(data.decode(errors="replace") if text is None and data else text)


class _WhisperLive:
    """One WhisperLive client."""

    def __init__(
        self,
        websocket: WebSocket,
        inbox: Inbox,
        service: SpeechService,
        uid: Any,
        greeting: Greeting,
    ) -> None:
        self._websocket = websocket
        self._inbox = inbox
        self._service = service
        self._uid = uid
        self._greeting = greeting
        self._completed: list[dict[str, Any]] = []
        self._provisional = False

    async def run(self) -> None:
        """Serve the client until its audio, its patience or its time ends."""
        greeting, service = self._greeting, self._service
        options = Options(
            task=greeting.task,
            language=greeting.language or service.settings.default_language,
            prompt=greeting.initial_prompt,
            hotwords=greeting.hotwords,
        )
        session = LiveSession(service, await self._model(), options, Pace(interim=1.0))
        await self._send({"message": "SERVER_READY", "backend": "faster_whisper"})
        limits = service.settings.max_audio_seconds, service.settings.max_idle_seconds
        receiving = receive_samples(self._inbox, session, greeting.audio_format, *limits)
        await converse(receiving, self._report(session))

    async def _report(self, session: LiveSession) -> None:
        """Send what is heard; at the end say goodbye."""
        told_language, warned = False, False
        async for event in session.events():
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, Heard):
                continue
            if not told_language and event.transcript.segments:
                told_language = True
                summary = event.transcript.summary
                language = {"language": summary.language}
                await self._send(language | {"language_prob": summary.language_probability})
            if not warned and event.transcript.summary.warnings:
                warned = True
                warning = "; ".join(event.transcript.summary.warnings)
                await self._send({"status": "WARNING", "message": warning})
            await self._show(event)
        await self._send({"message": "DISCONNECT"})
        await self._websocket.close()

    async def _model(self) -> str | None:
        """Return the model to use: a client names one by default, whether or not it is here."""
        model = self._greeting.model
        try:
            name = await self._service.resolve(model)
        except SpeechError:
            return None
        here = await asyncio.to_thread(self._service.engine.is_local, name)
        return model if here else None

    async def _show(self, heard: Heard) -> None:
        """Send the last segments; those of an unfinished utterance may change.

        A client puts the last segment that it was shown as unfinished behind those that are
        completed, unless its text is that of the last of them. So what is completed is shown
        as unfinished once more before.
        """
        current = self._written(heard.transcript.segments, heard.final)
        if not heard.final:
            self._provisional = self._provisional or bool(current)
            await self._send_segments(self._completed, current)
        elif current or self._provisional:
            self._provisional = False
            self._completed += current
            *before, last = self._completed or [_NOTHING]
            await self._send_segments(before, [last | {"completed": False}])
            await self._send_segments(self._completed, [], at_least=len(current))

    def _written(self, segments: tuple[Segment, ...], final: bool) -> list[dict[str, Any]]:
        """Return segments as clients want them.

        They leave out one that begins before its predecessor ends, and one with the same text; the
        space in front of a text keeps it from being the same.
        """
        written = []
        end = float(self._completed[-1]["end"]) if self._completed else 0.0
        for segment in segments:
            start = max(segment.start, end)
            end = max(segment.end, start)
            times = {"start": f"{start:.3f}", "end": f"{end:.3f}"}
            written.append({**times, "text": f" {segment.text.strip()}", "completed": final})
        return written

    async def _send_segments(
        self, completed: list[dict[str, Any]], unfinished: list[dict[str, Any]], at_least: int = 0
    ) -> None:
        """Send as many completed segments as the client wants, all that are new, and the rest."""
        count = max(self._greeting.send_last_n_segments, at_least, 0)
        segments = completed[max(0, len(completed) - count) :] + unfinished
        if segments:
            await self._send({"segments": segments})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._websocket.send_text(json.dumps({"uid": self._uid} | message))
