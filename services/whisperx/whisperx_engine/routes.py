"""`POST /transcribe`: words with their times and speakers, in one object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from speech_service.contract.languages import LanguageCode
from speech_service.contract.settings import Settings
from speech_service.contract.transcript import Options, Progress, Segment, Transcript, Word
from speech_service.http import formats
from speech_service.http.forms import SpeakerFields, TrackField
from speech_service.http.intake import Intake
from speech_service.http.openapi import SPEECH_ERRORS, openapi_body
from speech_service.http.spellings import FreeText
from speech_service.http.sse import EventStream, event
from speech_service.media.audio import MediaFile
from speech_service.work.job import Job
from starlette.responses import JSONResponse, Response

router = APIRouter(tags=["WhisperX"])

_WRITERS: dict[str, tuple[Callable[[Transcript], str], str]] = {
    **formats.PLAIN_WRITERS,
    "tsv": (formats.tsv, formats.PLAIN),
}


class TranscribeForm(SpeakerFields, TrackField):
    """The fields of `POST /transcribe`; the query may carry them as well."""

    model: str | None = Field(default=None, description="a size such as `small`, or a hub id")
    language: LanguageCode = Field(default=None, description="ISO 639-1; else detected")
    task: Literal["transcribe", "translate"] = "transcribe"
    align: bool = Field(default=True, description="find out when each word is spoken")
    initial_prompt: Annotated[str | None, FreeText()] = Field(
        default=None, description="text that comes before"
    )
    hotwords: Annotated[str | None, FreeText(", ", is_list=True)] = Field(
        default=None, description="words to expect"
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=256, description="stretches of speech decoded at once, at most"
    )
    output: Literal["json", "text", "srt", "vtt", "tsv"] = "json"
    stream: bool = Field(default=False, description="answer with server-sent events")

    def options(self, settings: Settings) -> Options:
        """Return what the engine is asked to do."""
        return Options(
            task=self.task,
            language=self.language or settings.default_language,
            prompt=self.initial_prompt,
            hotwords=self.hotwords,
            words=self.align,
            speakers=self.speakers() if self.diarize else None,
            batch_size=self.batch_size,
        )


_WORD = {"word": "one", "start": 0.31, "end": 0.52, "score": 0.97, "speaker": "SPEAKER_00"}
_EXAMPLE = {
    "segments": [
        {
            "start": 0.31,
            "end": 0.52,
            "text": "One.",
            "avg_logprob": -0.1,
            "speaker": "SPEAKER_00",
            "words": [_WORD],
        }
    ],
    "word_segments": [_WORD],
    "language": "en",
    "duration": 1.5,
    "speakers": ["SPEAKER_00"],
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the transcript as `output` asks",
        "content": {
            "application/json": {"example": _EXAMPLE},
            "text/plain": {"example": "SPEAKER_00: One.\n"},
            "text/vtt": {
                "example": "WEBVTT\n\n00:00:00.310 --> 00:00:00.520\n<v SPEAKER_00>One.\n\n"
            },
            "text/event-stream": {
                "example": 'data: {"type":"progress","stage":"align","progress":0.5}\n\n'
            },
        },
    },
    **SPEECH_ERRORS,
}


@router.post(
    "/transcribe",
    summary="Transcribe with word times and speakers",
    openapi_extra=openapi_body(TranscribeForm),
    responses=_RESPONSES,
)
async def transcribe(intake: Intake) -> Response:
    """Answer in the format of `output`; the file comes as `file` or `audio_file`.

    With `stream=true` the response is server-sent events: `progress` with stage and fraction,
    `segment` for each sentence once it is final, `done` with the whole response as `result`.
    """
    upload, form = await intake.form(TranscribeForm, ("file", "audio_file"))
    options = await intake.introduced(form, form.options(intake.settings))
    job = await intake.submit(MediaFile(upload.file, form.track), form.model, options)
    if form.stream:
        return EventStream(_events(job, form.output), job)
    transcript = await intake.finish(job)
    if form.output == "json":
        return JSONResponse(transcript_object(transcript))
    write, media_type = _WRITERS[form.output]
    return Response(write(transcript), headers={"Content-Type": media_type})


async def _events(job: Job, output: str) -> AsyncIterator[bytes]:
    async for item in job.watch():
        match item:
            case Progress():
                progress = {"stage": item.stage, "progress": round(item.done, 3)}
                yield event({"type": "progress", **progress})
            case Segment():
                yield event({"type": "segment", **segment_object(item)})
    transcript = job.result()
    whole = transcript_object(transcript) if output == "json" else _WRITERS[output][0](transcript)
    yield event({"type": "done", "result": whole})


def transcript_object(transcript: Transcript) -> dict[str, Any]:
    """Return the response in JSON, in the shape of WhisperX' own results."""
    segments = [segment_object(segment) for segment in transcript.segments]
    body: dict[str, Any] = {
        "segments": segments,
        "word_segments": [word for segment in segments for word in segment["words"]],
        "language": transcript.language,
        "duration": round(transcript.summary.duration, 3),
    }
    if transcript.speakers:
        body["speakers"] = transcript.speakers
    return body | formats.warnings(transcript)


def segment_object(segment: Segment) -> dict[str, Any]:
    """Return one element of `segments`."""
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text.strip(),
        "avg_logprob": round(segment.avg_logprob, 4),
        **({"speaker": segment.speaker} if segment.speaker else {}),
        "words": [word_object(word) for word in segment.words or ()],
    }


def word_object(word: Word) -> dict[str, Any]:
    """Return one word; `score` is missing where its time was not heard but guessed."""
    return {
        "word": word.word.strip(),
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        **({} if word.probability is None else {"score": round(word.probability, 3)}),
        **({"speaker": word.speaker} if word.speaker else {}),
    }
