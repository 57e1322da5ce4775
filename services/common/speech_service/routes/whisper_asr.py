"""`POST /asr` and `/detect-language` of whisper-asr-webservice, which subtitle tools know."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import PlainTextResponse, Response

from ..contract.languages import NAMES, LanguageCode
from ..contract.settings import Settings
from ..contract.transcript import Options, Transcript, VoiceActivity
from ..http import formats
from ..http.forms import TrackField
from ..http.intake import Intake
from ..http.openapi import SPEECH_ERRORS, openapi_query
from ..http.spellings import FreeText
from ..http.upload import Upload
from ..media.audio import MediaFile, RawFile, Recording

router = APIRouter(tags=["whisper-asr-webservice"])


_FILE_FIELDS = ("audio_file", "file")


class DetectQuery(TrackField):
    """The query of `POST /detect-language`; the audio comes as multipart field `audio_file`."""

    encode: bool = Field(default=True, description="false: raw s16le, mono, 16 kHz")


class AsrQuery(DetectQuery):
    """The query of `POST /asr`, which the body may hold as well."""

    task: Literal["transcribe", "translate"] = "transcribe"
    language: LanguageCode = None
    initial_prompt: Annotated[str | None, FreeText()] = None
    vad_filter: bool = False
    word_timestamps: bool = False
    output: Literal["txt", "vtt", "srt", "tsv", "json"] = "txt"

    def options(self, settings: Settings) -> Options:
        """Return what the engine is asked to do."""
        return Options(
            task=self.task,
            language=self.language or settings.default_language,
            prompt=self.initial_prompt,
            voice_activity=VoiceActivity() if self.vad_filter else None,
            words=self.word_timestamps or self.output in ("vtt", "srt"),
        )


@router.post(
    "/asr",
    summary="Transcribe as whisper-asr-webservice does",
    openapi_extra=openapi_query(AsrQuery, "audio_file"),
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "the transcript as an attachment",
            "content": {"text/plain": {"example": "One two three.\n"}},
        },
        **SPEECH_ERRORS,
    },
)
async def asr_transcribe(intake: Intake) -> Response:
    """Answer the transcript as an attachment, always `text/plain`."""
    upload, query = await intake.form(AsrQuery, _FILE_FIELDS)
    options = query.options(intake.settings)
    recording = _recording(upload, query.encode, query.track)
    transcript = await intake.transcribe(recording, None, options)
    name = f"{quote(upload.filename, safe='')[:500]}.{query.output}"
    return Response(
        _asr_text(transcript, query),
        headers={
            "Content-Type": formats.PLAIN,
            "Content-Disposition": f'attachment; filename="{name}"',
            "Asr-Engine": intake.service.engine.name,
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
    openapi_extra=openapi_query(DetectQuery, "audio_file"),
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
async def detect_language(intake: Intake) -> dict[str, str | float]:
    """Answer the language of the first half minute of speech."""
    upload, query = await intake.form(DetectQuery, _FILE_FIELDS)
    recording = _recording(upload, query.encode, query.track)
    summary = (await intake.transcribe(recording, None, Options(language_only=True))).summary
    return {
        "detected_language": NAMES.get(summary.language, summary.language),
        "language_code": summary.language,
        "confidence": summary.language_probability,
    }


def _recording(upload: Upload, encode: bool, track: int | None) -> Recording:
    return MediaFile(upload.file, track) if encode else RawFile(upload.file, upload.size)
