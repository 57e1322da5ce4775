"""The fields of a transcription request, and how they become `Options`.

One model per form; the OpenAPI document is made from the same models. Unknown fields are ignored,
because real clients send extras.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..contract.errors import InvalidField, InvalidRequest
from ..contract.languages import LanguageCode
from ..contract.response_format import ResponseFormat
from ..contract.settings import Settings
from ..contract.transcript import Options, Speakers, VoiceActivity

F = TypeVar("F", bound=BaseModel)

_MOST_SPEAKERS = 100


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _as_object(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"not valid JSON: {error}") from None
    return value


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


class ServerVad(BaseModel):
    """OpenAI's `chunking_strategy` object: how silence is told from speech."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float | None = Field(default=None, gt=0, lt=1)
    silence_duration_ms: int | None = Field(default=None, ge=0, le=60_000)
    prefix_padding_ms: int | None = Field(default=None, ge=0, le=60_000)


class SpeechForm(BaseModel):
    """Fields that transcriptions and translations share."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = Field(
        default=None, description="a model id; `whisper-1` is the default", examples=["whisper-1"]
    )
    prompt: str | None = Field(default=None, description="text that comes before the recording")
    response_format: ResponseFormat | None = Field(default=None, examples=["verbose_json"])
    temperature: float = Field(default=0.0, ge=0, le=1)
    stream: bool = Field(default=False, description="answer with server-sent events")
    vad_filter: bool = Field(default=True, description="leave out silence before decoding")

    def format(self, settings: Settings) -> ResponseFormat:
        """Return the format to answer in."""
        return self.response_format or settings.default_response_format


class TranslationForm(SpeechForm):
    """The fields of `POST /v1/audio/translations`."""

    def asked(self, settings: Settings) -> Asked:
        """Return what the client wants.

        Raises:
            InvalidRequest: speakers, which OpenAI's translations have no place for.
        """
        answer = self.format(settings)
        if answer is ResponseFormat.DIARIZED_JSON:
            raise InvalidRequest("translations have no diarized_json", "response_format")
        options = Options(
            task="translate",
            prompt=self.prompt,
            temperature=self.temperature,
            voice_activity=VoiceActivity() if self.vad_filter else None,
            words=answer.wants_words,
        )
        return Asked(self.model, options, answer, stream=self.stream)


class SpeakerFields(BaseModel):
    """Who speaks; for services that can tell speakers apart."""

    diarize: bool = Field(default=False, description="tell speakers apart, where the service can")
    num_speakers: int | None = Field(
        default=None, ge=1, le=_MOST_SPEAKERS, description="exactly so many"
    )
    min_speakers: int | None = Field(default=None, ge=1, le=_MOST_SPEAKERS)
    max_speakers: int | None = Field(default=None, ge=1, le=_MOST_SPEAKERS)

    def speakers(self) -> Speakers:
        """Return how many people speak.

        Raises:
            InvalidField: the limits contradict each other.
        """
        least, most = self.min_speakers or 1, self.max_speakers or _MOST_SPEAKERS
        if not least <= (self.num_speakers or least) <= most:
            raise InvalidField(
                "min_speakers, num_speakers and max_speakers contradict each other", "num_speakers"
            )
        return Speakers(self.num_speakers, self.min_speakers, self.max_speakers)


class TranscriptionForm(SpeakerFields, SpeechForm):
    """The fields of `POST /v1/audio/transcriptions`."""

    language: LanguageCode | None = Field(
        default=None, description="ISO 639-1; else detected", examples=["en"]
    )
    hotwords: str | None = Field(
        default=None, description="words to expect", examples=["Fresnel, Eddystone"]
    )
    timestamp_granularities: Annotated[
        list[Literal["word", "segment"]], BeforeValidator(_as_list)
    ] = Field(default=["segment"], description="`word` needs `verbose_json`")
    include: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default=[], description="accepted for OpenAI's clients; adds nothing"
    )
    chunking_strategy: Annotated[
        Literal["auto"] | ServerVad | None, BeforeValidator(_as_object)
    ] = None
    without_timestamps: bool = False

    def asked(self, settings: Settings) -> Asked:
        """Return what the client wants.

        Raises:
            InvalidRequest: word times in a format that has no place for them.
            InvalidField: numbers of speakers that contradict each other.
        """
        answer = self.format(settings)
        words = "word" in self.timestamp_granularities
        diarize = self.diarize or answer is ResponseFormat.DIARIZED_JSON
        if words and answer is not ResponseFormat.VERBOSE_JSON:
            raise InvalidRequest(
                "word timestamps need response_format=verbose_json", "timestamp_granularities"
            )
        options = Options(
            language=self.language or settings.default_language,
            prompt=self.prompt,
            hotwords=self.hotwords,
            temperature=self.temperature,
            voice_activity=self._voice_activity(),
            # A turn may end within a sentence: whose a word is, its own time tells.
            words=words or answer.wants_words or diarize,
            speakers=self.speakers() if diarize else None,
            without_timestamps=self.without_timestamps,
        )
        return Asked(self.model, options, answer, words, self.stream)

    def _voice_activity(self) -> VoiceActivity | None:
        match self.chunking_strategy:
            case ServerVad() as vad:
                return VoiceActivity(vad.threshold, vad.silence_duration_ms, vad.prefix_padding_ms)
            case "auto":
                return VoiceActivity()
            case None:
                return VoiceActivity() if self.vad_filter else None


def parse(kind: type[F], fields: dict[str, Any]) -> F:
    """Return the validated form.

    Raises:
        InvalidField: names the first field at fault and what it may be.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        raise InvalidField(
            f"{field}: {first['msg'].removeprefix('Value error, ')}", field
        ) from None
