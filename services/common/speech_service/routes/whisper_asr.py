"""`POST /asr` and `/detect-language` of whisper-asr-webservice, which subtitle tools know."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..contract.languages import NAMES, LanguageCode
from ..contract.transcript import Options, Transcript, VoiceActivity
from ..http import formats
from ..http.disconnect import unless_client_leaves
from ..http.openapi import SPEECH_ERRORS, openapi_file
from ..http.upload import Upload, read_form
from ..media.audio import MediaFile, RawFile, Recording
from . import Service

router = APIRouter(tags=["whisper-asr-webservice"])


class AsrQuery(BaseModel):
    """The query of `POST /asr`; the audio comes as multipart field `audio_file`."""

    model_config = ConfigDict(extra="ignore")

    encode: bool = Field(default=True, description="false: raw s16le, mono, 16 kHz")
    task: Literal["transcribe", "translate"] = "transcribe"
    language: LanguageCode | None = None
    initial_prompt: str | None = None
    vad_filter: bool = False
    word_timestamps: bool = False
    output: Literal["txt", "vtt", "srt", "tsv", "json"] = "txt"


@router.post(
    "/asr",
    summary="Transcribe as whisper-asr-webservice does",
    openapi_extra=openapi_file("audio_file"),
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "the transcript as an attachment",
            "content": {"text/plain": {"example": "One two three.\n"}},
        },
        **SPEECH_ERRORS,
    },
)
async def asr_transcribe(
    query: Annotated[AsrQuery, Query()], request: Request, service: Service
) -> Response:
    """Answer the transcript as an attachment, always `text/plain`."""
    service.turns.check()
    upload, _ = await read_form(request, service.settings.max_upload_bytes, ("audio_file",))
    options = Options(
        task=query.task,
        language=query.language or service.settings.default_language,
        prompt=query.initial_prompt,
        voice_activity=VoiceActivity() if query.vad_filter else None,
        words=query.word_timestamps or query.output in ("vtt", "srt"),
    )
    working = service.transcribe(_recording(upload, query.encode), None, options)
    transcript = await unless_client_leaves(request, working)
    name = f"{quote(upload.filename, safe='')[:500]}.{query.output}"
    return Response(
        _asr_text(transcript, query),
        headers={
            "Content-Type": formats.PLAIN,
            "Content-Disposition": f'attachment; filename="{name}"',
            "Asr-Engine": service.engine.name,
        },
    )


def _asr_text(transcript: Transcript, query: AsrQuery) -> str:
    match query.output:
        case "txt":
            return formats.text(transcript)
        case "srt":
            return formats.srt(transcript)
        case "vtt":
            return formats.vtt(transcript)
        case "tsv":
            return formats.tsv(transcript)
        case "json":
            return formats.whisper_json(transcript, query.word_timestamps)


@router.post(
    "/detect-language",
    summary="Which language is spoken",
    openapi_extra=openapi_file("audio_file"),
    responses={
        200: {
            "content": {
                "application/json": {
                    "example": {
                        "detected_language": "english",
                        "language_code": "en",
                        "confidence": 0.98,
                    }
                }
            }
        },
        **SPEECH_ERRORS,
    },
)
async def detect_language(
    request: Request, service: Service, encode: bool = True
) -> dict[str, str | float]:
    """Answer the language of the first half minute of speech."""
    service.turns.check()
    upload, _ = await read_form(request, service.settings.max_upload_bytes, ("audio_file",))
    working = service.transcribe(_recording(upload, encode), None, Options(language_only=True))
    summary = (await unless_client_leaves(request, working)).summary
    return {
        "detected_language": NAMES.get(summary.language, summary.language),
        "language_code": summary.language,
        "confidence": summary.language_probability,
    }


def _recording(upload: Upload, encode: bool) -> Recording:
    return MediaFile(upload.file) if encode else RawFile(upload.file, upload.size)
