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
from ..contract.settings import LanguageCode, Settings
from ..contract.transcript import Options, Speakers, VoiceActivity
from .formats import ResponseFormat

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


def openapi_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI description of a multipart body: a `file` and the form's fields."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return _multipart("file", _inlined(schema, definitions)["properties"])


def openapi_file(field: str) -> dict[str, Any]:
    """Return the OpenAPI description of a multipart body that is a file and nothing else."""
    return _multipart(field, {})


def _multipart(file_field: str, properties: dict[str, Any]) -> dict[str, Any]:
    file = {"type": "string", "format": "binary", "description": "audio or video"}
    fields = {name: _form_field(field) for name, field in properties.items()}
    schema = {
        "type": "object",
        "required": [file_field],
        "properties": {file_field: file, **fields},
    }
    filled = {
        name: field["examples"][0] for name, field in properties.items() if "examples" in field
    }
    body = {"schema": schema, "example": {file_field: "speech.wav", **filled}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": body}}}


def _form_field(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a field as a form carries it: what JSON calls null is left empty there.

    An empty field counts as absent. Saying so by an example keeps Swagger UI from filling the
    field with the word "string" when somebody tries the route.
    """
    if schema.get("default", ...) is not None:
        return schema
    kinds = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **rest, "examples": [""]}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Replace references by what they refer to: the body is described in one place."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}
