"""`POST /transcribe` and `/transcribe/url`: one object for the clients of two plain servers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..contract.errors import NotFound, SpeechError
from ..contract.languages import LanguageCode
from ..contract.settings import Settings
from ..contract.transcript import Options, Transcript, VoiceActivity
from ..http import formats
from ..http.forms import TrackField
from ..http.intake import Intake, SpeechIntake
from ..http.openapi import openapi_body, openapi_json
from ..http.refusals import translated
from ..http.spellings import FreeText
from ..media.audio import MediaFile, Recording


class PlainErrors(APIRoute):
    """A route whose errors are `{"success": false, "error": text}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except (SpeechError, RequestValidationError, HTTPException) as error:
                refusal = translated(error)
                body = {"success": False, "error": refusal.message}
                return JSONResponse(body, refusal.status, refusal.headers)

        return handler


router = APIRouter(tags=["plain"], route_class=PlainErrors)


class PlainForm(TrackField):
    """The fields of `POST /transcribe`."""

    model: str | None = None
    language: LanguageCode = Field(
        default=None, description="ISO 639-1; else detected", examples=["en"]
    )
    task: Literal["transcribe", "translate"] = "transcribe"
    vad_filter: bool = True

    def options(self, settings: Settings) -> Options:
        """Return what the engine is asked to do."""
        return Options(
            task=self.task,
            language=self.language or settings.default_language,
            voice_activity=VoiceActivity() if self.vad_filter else None,
        )


class UrlForm(PlainForm):
    """The body of `POST /transcribe/url`."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"url": "https://example.org/talk.mp3", "language": "en"}}
    )

    url: Annotated[str, FreeText()] = Field(max_length=4096)


_PLAIN_EXAMPLE = {
    "success": True,
    "text": "One two three.",
    "language": "en",
    "duration": 2.5,
    "segments": [{"start": 0.1, "end": 2.3, "text": " One two three.", "no_speech_prob": 0.01}],
    "info": {
        "language": "en",
        "language_probability": 0.98,
        "duration": 2.5,
        "duration_after_vad": 2.3,
        "transcription_options": {"task": "transcribe", "language": None},
    },
    "filename": "one.wav",
}
_PLAIN_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _PLAIN_EXAMPLE}}},
    **{
        statuses: {
            "description": meaning,
            "content": {"application/json": {"example": {"success": False, "error": error}}},
        }
        for statuses, meaning, error in (
            ("4XX", "the request cannot be served", "the file is empty"),
            ("5XX", "not now", "the service is shutting down"),
        )
    },
}


@router.post(
    "/transcribe",
    summary="Transcribe a recording, plain answer",
    openapi_extra=openapi_body(PlainForm),
    responses=_PLAIN_RESPONSES,
)
async def transcribe(intake: Intake) -> Response:
    """Answer text, segments and what is known of the recording in one object."""
    upload, form = await intake.form(PlainForm)
    return await _plain(intake, form, MediaFile(upload.file, form.track), upload.filename)


@router.post(
    "/transcribe/url",
    summary="Transcribe a recording from the internet (off by default)",
    openapi_extra=openapi_json(UrlForm),
    responses=_PLAIN_RESPONSES,
)
async def transcribe_url(intake: Intake) -> Response:
    """Fetch a public address and answer as `/transcribe`; needs `ALLOW_URL=1`."""
    if not intake.settings.allow_url:
        raise NotFound("fetching addresses is switched off; set ALLOW_URL=1 to allow it")
    form = await intake.json(UrlForm)
    recording = await intake.fetched(form.url, form.track)
    return await _plain(intake, form, recording, form.url.rpartition("/")[2])


async def _plain(
    intake: SpeechIntake, form: PlainForm, recording: Recording, name: str
) -> Response:
    options = form.options(intake.settings)
    transcript = await intake.transcribe(recording, form.model, options)
    return JSONResponse(plain_object(transcript, options, name))


def plain_object(transcript: Transcript, options: Options, filename: str) -> dict[str, Any]:
    """Return the one object that serves the clients of both older servers."""
    summary = transcript.summary
    return {
        "success": True,
        "text": transcript.text,
        "language": transcript.language,
        "duration": round(summary.duration, 3),
        "segments": [
            {
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "text": segment.text,
                "no_speech_prob": segment.no_speech_prob,
            }
            for segment in transcript.segments
        ],
        "info": {
            "language": summary.language,
            "language_probability": summary.language_probability,
            "duration": round(summary.duration, 3),
            "duration_after_vad": round(summary.duration_after_vad, 3),
            "transcription_options": asdict(options),
        },
        "filename": filename,
        **formats.warnings(transcript),
    }
