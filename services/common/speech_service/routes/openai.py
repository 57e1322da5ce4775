"""OpenAI's audio API: `POST /v1/audio/transcriptions` and `/v1/audio/translations`.

Shapes: https://platform.openai.com/docs/api-reference/audio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ..contract.errors import InvalidRequest
from ..contract.languages import LanguageCode
from ..contract.response_format import ResponseFormat
from ..contract.settings import Settings
from ..contract.transcript import Options, Segment, Summary, Transcript, VoiceActivity
from ..http import formats
from ..http.forms import SpeakerFields, TrackField
from ..http.intake import Intake, SpeechIntake
from ..http.openapi import SPEECH_ERRORS, openapi_body
from ..http.spellings import Form, FreeText
from ..http.sse import EventStream, event
from ..media.audio import MediaFile
from ..work.job import Job

router = APIRouter(tags=["OpenAI audio"])


@dataclass(frozen=True, slots=True)
class Asked:
    """A validated request: which model, what it is to do, and how to answer.

    `words` asks for the flat list of words, `stream` for server-sent events.
    """

    model: str | None
    options: Options
    format: ResponseFormat
    words: bool = False
    stream: bool = False


class ServerVad(Form):
    """OpenAI's `chunking_strategy` object: how silence is told from speech."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float | None = Field(default=None, gt=0, lt=1)
    silence_duration_ms: int | None = Field(default=None, ge=0, le=60_000)
    prefix_padding_ms: int | None = Field(default=None, ge=0, le=60_000)


class SpeechForm(TrackField):
    """Fields that transcriptions and translations share."""

    model: str | None = Field(
        default=None, description="a model id; `whisper-1` is the default", examples=["whisper-1"]
    )
    prompt: Annotated[str | None, FreeText()] = Field(
        default=None, description="text that comes before the recording"
    )
    response_format: ResponseFormat | None = Field(default=None, examples=["verbose_json"])
    temperature: float = Field(default=0.0, ge=0, le=1)
    stream: bool = Field(default=False, description="answer with server-sent events")
    vad_filter: bool = Field(default=True, description="leave out silence before decoding")

    def format(self, settings: Settings) -> ResponseFormat:
        """Return the format of the response."""
        return self.response_format or settings.default_response_format


class TranslationForm(SpeechForm):
    """The fields of `POST /v1/audio/translations`."""

    def asked(self, settings: Settings) -> Asked:
        """Return what the client wants.

        Raises:
            InvalidRequest: speakers, which OpenAI's translations have no place for.
        """
        response_format = self.format(settings)
        if response_format is ResponseFormat.DIARIZED_JSON:
            raise InvalidRequest("translations have no diarized_json", "response_format")
        options = Options(
            task="translate",
            prompt=self.prompt,
            temperature=self.temperature,
            voice_activity=VoiceActivity() if self.vad_filter else None,
            words=response_format.wants_words,
        )
        return Asked(self.model, options, response_format, stream=self.stream)


class TranscriptionForm(SpeakerFields, SpeechForm):
    """The fields of `POST /v1/audio/transcriptions`."""

    language: LanguageCode = Field(
        default=None, description="ISO 639-1; else detected", examples=["en"]
    )
    hotwords: Annotated[str | None, FreeText(", ", is_list=True)] = Field(
        default=None, description="words to expect", examples=["Fresnel, Eddystone"]
    )
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        default=["segment"], description="`word` is for `verbose_json`; others have no place for it"
    )
    include: list[str] = Field(
        default=[], description="accepted for OpenAI's clients; adds nothing"
    )
    chunking_strategy: Literal["auto"] | ServerVad | None = None
    without_timestamps: bool = False

    def asked(self, settings: Settings) -> Asked:
        """Return what the client wants.

        Raises:
            InvalidField: numbers of speakers that contradict each other.
        """
        response_format = self.format(settings)
        wants_words = "word" in self.timestamp_granularities
        words = wants_words and response_format is ResponseFormat.VERBOSE_JSON
        diarize = self.diarize or response_format is ResponseFormat.DIARIZED_JSON
        options = Options(
            language=self.language or settings.default_language,
            prompt=self.prompt,
            hotwords=self.hotwords,
            temperature=self.temperature,
            voice_activity=self._voice_activity(),
            # A turn may end within a sentence: whose a word is, its own time tells.
            words=words or response_format.wants_words or diarize,
            speakers=self.speakers() if diarize else None,
            without_timestamps=self.without_timestamps,
        )
        return Asked(self.model, options, response_format, words, self.stream)

    def _voice_activity(self) -> VoiceActivity | None:
        match self.chunking_strategy:
            case ServerVad() as vad:
                return VoiceActivity(vad.threshold, vad.silence_duration_ms, vad.prefix_padding_ms)
            case "auto":
                return VoiceActivity()
            case None:
                return VoiceActivity() if self.vad_filter else None


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
async def transcriptions(intake: Intake, stream_format: str | None = None) -> Response:
    """Answer in `response_format`, or with `stream=true` as OpenAI's server-sent events.

    `stream_format=fws` streams each segment in the response format instead.
    """
    return await _speech(intake, TranscriptionForm, stream_format)


@router.post(
    "/v1/audio/translations",
    summary="Translate a recording into English text",
    openapi_extra=openapi_body(TranslationForm),
    responses=_RESPONSES,
)
async def translations(intake: Intake, stream_format: str | None = None) -> Response:
    """Answer as transcriptions do; `language` is always `en`."""
    return await _speech(intake, TranslationForm, stream_format)


async def _speech(
    intake: SpeechIntake,
    kind: type[TranscriptionForm] | type[TranslationForm],
    stream_format: str | None,
) -> Response:
    upload, form = await intake.form(kind)
    asked = form.asked(intake.settings)
    if asked.options.speakers and not intake.service.engine.abilities.speakers:
        raise InvalidRequest("this service cannot tell speakers apart", "response_format")
    if isinstance(form, TranscriptionForm):
        asked = replace(asked, options=await intake.introduced(form, asked.options))
    recording = MediaFile(upload.file, form.track)
    job = await intake.submit(recording, asked.model, asked.options)
    if asked.stream:
        fws = stream_format is not None and stream_format.strip().lower() == "fws"
        return EventStream(segment_events(job, asked) if fws else openai_events(job), job)
    return written(await intake.finish(job), asked)


def written(transcript: Transcript, asked: Asked) -> Response:
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


async def openai_events(job: Job) -> AsyncIterator[bytes]:
    """Yield `transcript.text.delta` per segment and `transcript.text.done` at the end.

    The deltas put together are the text of the last event. Where speakers were asked for, each
    segment comes before its delta as the `transcript.text.segment` of OpenAI's diarizing models.
    """
    begun = False
    async for segment in job:
        if job.options.speakers:
            yield event(formats.diarized_segment(segment))
        delta = segment.text if begun else segment.text.lstrip()
        begun = begun or bool(delta)
        yield event({"type": "transcript.text.delta", "delta": delta})
    transcript = job.result()
    done = {"text": transcript.text, "usage": formats.token_usage(transcript)}
    yield event({"type": "transcript.text.done", **done, **formats.warnings(transcript)})


async def segment_events(job: Job, asked: Asked) -> AsyncIterator[bytes]:
    """Yield each segment alone in the response format, as faster-whisper-server streams."""
    async for segment in job:
        # The length of the whole is not known yet; what has been heard so far is.
        heard = Summary(job.options.language or "", 0.0, segment.end, segment.end)
        alone = Transcript(job.options.task, heard, (segment,))
        yield event(_alone(alone, segment, asked))
    job.result()


def _alone(transcript: Transcript, segment: Segment, asked: Asked) -> Any:
    match asked.format:
        case ResponseFormat.JSON:
            return {"text": segment.text}
        case ResponseFormat.VERBOSE_JSON:
            return formats.verbose_json(transcript, asked.words)
        case ResponseFormat.DIARIZED_JSON:
            return formats.diarized_segment(segment)
        case other:
            return formats.PLAIN_WRITERS[other][0](transcript)
