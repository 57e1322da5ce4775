"""Live transcription as WhisperLive has it (github.com/collabora/WhisperLive): `WS /`.

A JSON greeting comes in, then binary float32 or int16 samples, 16 kHz mono; segments go out as they
are heard, also those after the end of the audio.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..contract.errors import QueueFull, SpeechError
from ..contract.languages import LanguageCode
from ..contract.transcript import Options
from ..http.auth import chosen_protocol
from ..http.forms import parse
from ..http.intake import Service
from ..http.sockets import converse, json_object, orderly, receive_samples
from ..media.utterances import Pace
from ..work.live import Failed, Heard, LiveSession
from ..work.service import SpeechService

router = APIRouter()


class Greeting(BaseModel):
    """The first message of a WhisperLive client."""

    model_config = ConfigDict(extra="ignore")

    uid: str
    language: LanguageCode | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    model: str | None = None
    initial_prompt: str | None = None
    hotwords: str | None = None
    send_last_n_segments: int = 10
    audio_format: Literal["float32", "int16"] = "float32"


@router.websocket("/")
async def whisper_live(websocket: WebSocket, service: Service) -> None:
    """Speak WhisperLive's protocol."""
    await websocket.accept(chosen_protocol(websocket))
    uid = ""

    def worded(error: SpeechError) -> str:
        if isinstance(error, QueueFull):
            minutes = math.ceil(error.retry_after / 60)
            return json.dumps({"uid": uid, "status": "WAIT", "message": minutes})
        return json.dumps({"uid": uid, "status": "ERROR", "message": error.message})

    async with orderly(websocket, worded):
        greeting = await _greeting(websocket)
        uid = greeting.uid
        with service.live_session():
            await _WhisperLive(websocket, service, greeting).run()


async def _greeting(websocket: WebSocket) -> Greeting:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    fields = json_object(message.get("text"))
    return parse(Greeting, {key: value for key, value in fields.items() if value is not None})


class _WhisperLive:
    """One WhisperLive client."""

    def __init__(self, websocket: WebSocket, service: SpeechService, greeting: Greeting) -> None:
        self._websocket = websocket
        self._service = service
        self._greeting = greeting
        self._completed: list[dict[str, Any]] = []

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
        receiving = receive_samples(self._websocket, session, greeting.audio_format, service)
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
        """Send the last segments; those of an unfinished utterance may change."""
        current = [
            {
                "start": f"{segment.start:.3f}",
                "end": f"{segment.end:.3f}",
                "text": segment.text,
                "completed": heard.final,
            }
            for segment in heard.transcript.segments
        ]
        if heard.final:
            self._completed += current
            current = []
        last = self._completed[-self._greeting.send_last_n_segments :]
        if last or current:
            await self._send({"segments": last + current})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._websocket.send_text(json.dumps({"uid": self._greeting.uid} | message))
