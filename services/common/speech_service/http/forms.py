"""What the forms of all families share: how their fields are read, and those about speakers.

Each form is one model, from which the OpenAPI document is made too. It is read by hand and checked
afterwards, so that limits apply while it arrives and every error has one shape.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from ..contract.errors import InvalidField, InvalidRequest
from ..contract.transcript import Speakers
from .spellings import Form, WholeValues

F = TypeVar("F", bound=BaseModel)

_MOST_SPEAKERS = 100
_MOST_KNOWN = 4
"""As at OpenAI."""

_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name has no line breaks")
    return name


SpeakerName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64),
    AfterValidator(_printable),
]


class TrackField(Form):
    """Which audio track of a file is meant."""

    track: int | None = Field(
        default=None, ge=0, description="audio track, from 0; else the default one, or the first"
    )


class SpeakerFields(Form):
    """Who speaks; for services that can tell speakers apart."""

    diarize: bool = Field(default=False, description="tell speakers apart, where the service can")
    num_speakers: int | None = Field(
        default=None, ge=1, le=_MOST_SPEAKERS, description="exactly so many"
    )
    min_speakers: int | None = Field(default=None, ge=1, le=_MOST_SPEAKERS)
    max_speakers: int | None = Field(default=None, ge=1, le=_MOST_SPEAKERS)
    known_speaker_names: Annotated[list[SpeakerName], WholeValues()] = Field(
        default=[], max_length=_MOST_KNOWN, description="who some of the speakers are"
    )
    known_speaker_references: Annotated[list[str], WholeValues()] = Field(
        default=[],
        max_length=_MOST_KNOWN,
        description="a data URL with 2 to 10 seconds of each of their voices, in the same order",
    )

    def known(self) -> list[tuple[str, bytes]]:
        """Return the names of those whose voices are known, each with a recording as a file.

        Raises:
            InvalidRequest: names and recordings do not belong together, or one is no data URL.
        """
        names, references = self.known_speaker_names, self.known_speaker_references
        if len(names) != len(references) or len(set(names)) < len(names):
            raise InvalidRequest(
                "known_speaker_names and known_speaker_references must be pairs, each name once",
                "known_speaker_names",
            )
        return [(name, _data(url)) for name, url in zip(names, references, strict=True)]

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


def _data(url: str) -> bytes:
    """Return what a data URL holds (RFC 2397)."""
    head = _DATA_URL.match(url)
    try:
        if head:
            return binascii.a2b_base64(url[head.end() :], strict_mode=True)
    except ValueError:
        pass
    raise InvalidRequest(
        "known_speaker_references must be data URLs, such as data:audio/wav;base64,…",
        "known_speaker_references",
    )


def json_object(text: str | None, what: str = "every message") -> dict[str, Any]:
    """Return what is one JSON object.

    Args:
        what: is meant to be one, for the person who sent it.
    Raises:
        InvalidRequest: it is something else, is nested too deeply, or holds half a character, which
            no answer could repeat.
    """
    try:
        found = json.loads(text or "")
        if "\\u" in (text or ""):
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{what} must be a JSON object") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"{what} must be a JSON object")
    return found


def parse(kind: type[F], fields: dict[str, Any]) -> F:
    """Return the validated form.

    Raises:
        InvalidField: names the first field at fault and what it may be.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise refused(error.errors(include_url=False)) from None


def refused(errors: Sequence[Mapping[str, Any]]) -> InvalidField:
    """Return what is wrong with a form, in its own words: the field and what it may be.

    Args:
        errors: those of pydantic; the first field is told, at the place that says most.
    """
    first = max(
        (error for error in errors if error["loc"][:1] == errors[0]["loc"][:1]),
        key=lambda error: len(error["loc"]),
    )
    # Between the names of fields there are positions in lists, and types that were tried.
    names = (str(part) for part in first["loc"])
    field = ".".join(name for name in names if re.fullmatch(r"[a-z_]\w*", name))
    return InvalidField(f"{field}: {_says(first)}", field)


def _says(error: Mapping[str, Any]) -> str:
    if error["type"].startswith(("model_", "dict_", "dataclass_")):
        return "must be an object"
    if isinstance(error.get("input"), list | dict) and error["type"] != "missing":
        return "must be one value"
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
