"""Live transcription as faster-whisper-server has it: `WS /v1/audio/transcriptions`.

Binary s16le, 16 kHz mono, comes in; after every utterance the transcript so far goes out in the
format asked for.
"""

from __future__ import annotations

import json
from dataclasses import replace

from fastapi import APIRouter
from pydantic import Field
from starlette.websockets import WebSocket

from ..contract.errors import InvalidRequest
from ..contract.languages import LanguageCode
from ..contract.response_format import ResponseFormat
from ..contract.transcript import Options, Segment, Transcript
from ..http import formats
from ..http.auth import chosen_protocol
from ..http.forms import parse
from ..http.intake import Service
from ..http.sockets import Inbox, converse, orderly, receive_samples
from ..http.spellings import Form, nested
from ..media.utterances import Pace
from ..work.live import Failed, Heard, LiveSession
from ..work.service import SpeechService

router = APIRouter()


class LiveQuery(Form):
    """The query of faster-whisper-server's WebSocket."""

    model: str | None = None
    language: LanguageCode = None
    response_format: ResponseFormat | None = None
    temperature: float = Field(default=0.0, ge=0, le=1)


@router.websocket("/v1/audio/transcriptions")
async def transcriptions(websocket: WebSocket, service: Service) -> None:
    """Speak faster-whisper-server's protocol."""
    await websocket.accept(chosen_protocol(websocket))
    async with orderly(websocket, lambda error: json.dumps(error.as_openai())):
        query = parse(LiveQuery, nested(websocket.query_params.multi_items()))
        with service.live_sessions.one():
            inbox = Inbox(websocket)
            await inbox.meanwhile(service.provide(query.model))
            await _faster_whisper_server(websocket, inbox, service, query)


async def _faster_whisper_server(
    websocket: WebSocket, inbox: Inbox, service: SpeechService, query: LiveQuery
) -> None:
    """Serve a client until it stops sending, which is how its kind says that it is done."""
    settings = service.settings
    response_format = query.response_format or settings.default_response_format
    if response_format is ResponseFormat.DIARIZED_JSON:
        raise InvalidRequest("a live transcript has no diarized_json", "response_format")
    options = Options(
        language=query.language or settings.default_language,
        temperature=query.temperature,
        words=response_format.wants_words or response_format is ResponseFormat.VERBOSE_JSON,
    )
    pace = Pace(
        shortest=settings.min_duration,
        inactivity=settings.max_inactivity_seconds,
        window=settings.inactivity_window_seconds,
    )
    session = LiveSession(service, query.model, options, pace)
    segments: list[Segment] = []

    async def send() -> None:
        async for event in session.events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Heard):
                for segment in event.transcript.segments:
                    segments.append(replace(segment, id=len(segments)))
                summary = replace(event.transcript.summary, duration=session.seconds)
                so_far = Transcript("transcribe", summary, tuple(segments))
                await websocket.send_text(_written(so_far, response_format))
        await websocket.close()

    limits = settings.max_audio_seconds, settings.max_no_data_seconds
    await converse(receive_samples(inbox, session, "int16", *limits), send())


def _written(transcript: Transcript, response_format: ResponseFormat) -> str:
    match response_format:
        case ResponseFormat.JSON:
            body = {"text": transcript.text} | formats.warnings(transcript)
            return json.dumps(body, ensure_ascii=False)
        case ResponseFormat.VERBOSE_JSON:
            return json.dumps(formats.verbose_json(transcript, words=True), ensure_ascii=False)
        case ResponseFormat.TEXT:
            return transcript.text
        case other:
            return formats.PLAIN_WRITERS[other][0](transcript)
