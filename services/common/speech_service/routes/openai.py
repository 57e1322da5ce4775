"""OpenAI's audio API: `POST /v1/audio/transcriptions` and `/v1/audio/translations`.

Shapes: https://platform.openai.com/docs/api-reference/audio. The form is read by hand and
validated afterwards, so that limits apply while it arrives and every error has one shape.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..contract.errors import InvalidRequest
from ..contract.response_format import ResponseFormat
from ..contract.transcript import Transcript
from ..http import formats
from ..http.disconnect import unless_client_leaves
from ..http.forms import Asked, TranscriptionForm, TranslationForm, parse
from ..http.openapi import SPEECH_ERRORS, openapi_body
from ..http.sse import EventStream, openai_events, segment_events
from ..http.upload import read_form
from ..media.audio import MediaFile
from ..work.service import SpeechService
from . import Service

router = APIRouter(tags=["OpenAI audio"])

_JSON = {"text": "One two three.", "usage": {"type": "duration", "seconds": 2.5}}
_SRT = "1\n00:00:00,120 --> 00:00:01,480\nOne two three.\n\n"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the transcript in the format asked for",
        "content": {
            "application/json": {"example": _JSON},
            "text/plain": {"example": _SRT},
            "text/vtt": {"example": "WEBVTT\n\n" + _SRT[2:].replace(",", ".")},
            "text/event-stream": {
                "example": 'data: {"type":"transcript.text.delta","delta":"One"}\n\n'
            },
        },
    },
    **SPEECH_ERRORS,
}


@router.post(
    "/v1/audio/transcriptions",
    summary="Transcribe a recording in its own language",
    openapi_extra=openapi_body(TranscriptionForm),
    responses=_RESPONSES,
)
async def transcriptions(
    request: Request, service: Service, stream_format: str | None = None
) -> Response:
    """Answer in `response_format`, or with `stream=true` as OpenAI's server-sent events.

    `stream_format=fws` streams each segment in the response format instead.
    """
    return await _speech(request, service, TranscriptionForm, stream_format)


@router.post(
    "/v1/audio/translations",
    summary="Translate a recording into English text",
    openapi_extra=openapi_body(TranslationForm),
    responses=_RESPONSES,
)
async def translations(
    request: Request, service: Service, stream_format: str | None = None
) -> Response:
    """Answer as transcriptions do; `language` is always `en`."""
    return await _speech(request, service, TranslationForm, stream_format)


async def _speech(
    request: Request,
    service: SpeechService,
    kind: type[TranscriptionForm] | type[TranslationForm],
    stream_format: str | None,
) -> Response:
    service.turns.check()
    upload, fields = await read_form(request, service.settings.max_upload_bytes)
    asked = upload.checked(lambda: _asked(service, parse(kind, fields)))
    starting = service.submit(MediaFile(upload.file), asked.model, asked.options)
    job = await unless_client_leaves(request, starting)
    if asked.stream:
        fws = stream_format == "fws"
        return EventStream(segment_events(job, asked.format) if fws else openai_events(job), job)
    return answer(await unless_client_leaves(request, job.transcript()), asked)


def _asked(service: SpeechService, form: TranscriptionForm | TranslationForm) -> Asked:
    asked = form.asked(service.settings)
    if asked.options.speakers and not service.engine.abilities.speakers:
        raise InvalidRequest("this service cannot tell speakers apart", "response_format")
    return asked


def answer(transcript: Transcript, asked: Asked) -> Response:
    """Return a transcript in the format asked for."""
    match asked.format:
        case ResponseFormat.JSON:
            return JSONResponse(formats.json(transcript))
        case ResponseFormat.VERBOSE_JSON:
            return JSONResponse(formats.verbose_json(transcript, asked.words))
        case ResponseFormat.DIARIZED_JSON:
            return JSONResponse(formats.diarized_json(transcript))
        case other:
            write, media_type = formats.PLAIN_WRITERS[other]
            return Response(write(transcript), headers={"Content-Type": media_type})
