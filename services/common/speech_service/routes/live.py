"""Live transcription over WebSockets, in the protocols of two servers.

- `/v1/audio/transcriptions`: faster-whisper-server. Binary s16le in; after every utterance the
  transcript so far comes out in the format asked for.
- `/`: WhisperLive (github.com/collabora/WhisperLive). A JSON greeting, then binary float32 or int16
  samples; segments come out as they are heard, also those after the end of the audio.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..contract.errors import InvalidField, QueueFull, SpeechError
from ..contract.languages import LanguageCode
from ..contract.response_format import ResponseFormat
from ..contract.transcript import Options, Segment, Transcript
from ..http import formats
from ..http.auth import chosen_protocol
from ..http.forms import parse
from ..media.utterances import Pace
from ..work.live import Failed, Heard, LiveSession
from ..work.service import SpeechService
from . import Service

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

router = APIRouter()

END_OF_AUDIO = "END_OF_AUDIO"
SILENT_CLIENT_SECONDS = 1.0
"""faster-whisper-server's clients do not say when they are done; they stop sending."""
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013


class LiveQuery(BaseModel):
    """The query of faster-whisper-server's WebSocket."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    language: LanguageCode | None = None
    response_format: ResponseFormat | None = None
    temperature: float = 0.0


@router.websocket("/v1/audio/transcriptions")
async def transcriptions(websocket: WebSocket, service: Service) -> None:
    """Speak faster-whisper-server's protocol."""
    await websocket.accept(chosen_protocol(websocket))
    try:
        query = parse(LiveQuery, dict(websocket.query_params))
        await service.resolve(query.model)
        with service.live_session():
            await _faster_whisper_server(websocket, service, query)
    except SpeechError as error:
        await _refuse(websocket, json.dumps(error.as_openai()), error)


async def _faster_whisper_server(
    websocket: WebSocket, service: SpeechService, query: LiveQuery
) -> None:
    answer = query.response_format or service.settings.default_response_format
    options = Options(
        language=query.language or service.settings.default_language,
        temperature=query.temperature,
        words=answer.wants_words,
    )
    session = LiveSession(service, query.model, options, Pace())
    segments: list[Segment] = []

    async def send() -> None:
        async for event in session.events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Heard):
                segments.extend(event.transcript.segments)
                so_far = Transcript("transcribe", event.transcript.summary, tuple(segments))
                await websocket.send_text(_written(so_far, answer))
        await websocket.close()

    receiving = receive_samples(websocket, session, "int16", service, SILENT_CLIENT_SECONDS)
    await converse(receiving, send())


def _written(transcript: Transcript, answer: ResponseFormat) -> str:
    match answer:
        case ResponseFormat.JSON:
            return json.dumps({"text": transcript.text}, ensure_ascii=False)
        case ResponseFormat.VERBOSE_JSON:
            return json.dumps(formats.verbose_json(transcript), ensure_ascii=False)
        case ResponseFormat.TEXT:
            return transcript.text
        case other:
            return formats.PLAIN_WRITERS[other][0](transcript)


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
    try:
        greeting = await _greeting(websocket)
        uid = greeting.uid
        with service.live_session():
            await _WhisperLive(websocket, service, greeting).run()
    except QueueFull as error:
        minutes = math.ceil(error.retry_after / 60)
        await _refuse(
            websocket, json.dumps({"uid": uid, "status": "WAIT", "message": minutes}), error
        )
    except SpeechError as error:
        failure = {"uid": uid, "status": "ERROR", "message": error.message}
        await _refuse(websocket, json.dumps(failure), error)
    except WebSocketDisconnect:
        return


async def _greeting(websocket: WebSocket) -> Greeting:
    try:
        fields = json.loads(await websocket.receive_text())
    except (ValueError, KeyError) as error:
        raise InvalidField("the first message must be a JSON object") from error
    if not isinstance(fields, dict):
        raise InvalidField("the first message must be a JSON object")
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
        told_language = False
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


async def converse(
    receiving: Coroutine[Any, Any, bool], sending: Coroutine[Any, Any, None]
) -> None:
    """Run both directions of a connection until the sender is done or the client has left.

    Args:
        receiving: returns whether the client still waits for what is left to say.
        sending: ends by itself once the audio has ended.
    """
    receiver, sender = asyncio.ensure_future(receiving), asyncio.ensure_future(sending)
    try:
        await asyncio.wait((receiver, sender), return_when=asyncio.FIRST_COMPLETED)
        if sender.done() or receiver.result():
            await sender
    except WebSocketDisconnect:
        pass
    finally:
        for task in (receiver, sender):
            task.cancel()
        await asyncio.gather(receiver, sender, return_exceptions=True)


async def receive_samples(
    websocket: WebSocket,
    session: LiveSession,
    kind: Literal["float32", "int16"],
    service: SpeechService,
    patience: float | None = None,
) -> bool:
    """Feed a session from a client until it is done, has left, or has had its time.

    Args:
        patience: seconds of silence on the wire that mean the client is done.
    Returns:
        Whether the client is still there.
    """
    limit = service.settings.max_audio_seconds
    rest = b""
    while session.seconds < limit:
        try:
            message = await asyncio.wait_for(websocket.receive(), patience)
        except TimeoutError:
            break
        if message["type"] == "websocket.disconnect":
            return False
        data = message.get("bytes") or b""
        if message.get("text") == END_OF_AUDIO or data == END_OF_AUDIO.encode():
            break
        rest += data
        whole = len(rest) // _WIDTH[kind] * _WIDTH[kind]
        if whole:
            await session.feed(_samples(rest[:whole], kind))
            rest = rest[whole:]
    session.end()
    return True


_WIDTH = {"float32": 4, "int16": 2}


def _samples(data: bytes, kind: Literal["float32", "int16"]) -> NDArray[np.int16]:
    """Return the samples of a message; what is no number counts as silence."""
    import numpy as np

    if kind == "int16":
        return np.frombuffer(data, "<i2").astype(np.int16)
    floats = np.nan_to_num(np.frombuffer(data, "<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
    samples: NDArray[np.int16] = (np.clip(floats, -1.0, 1.0) * 32767).astype(np.int16)
    return samples


async def _refuse(websocket: WebSocket, message: str, error: SpeechError) -> None:
    """Say why, then close: 1013 for what may work later, 1008 for what never will."""
    later = error.status in (429, 503)
    with suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_text(message)
        await websocket.close(TRY_AGAIN_LATER if later else POLICY_VIOLATION)
