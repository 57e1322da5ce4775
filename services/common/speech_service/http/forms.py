"""What the forms of all families share: how their fields are read, and those about speakers.

Each form is one model, from which the OpenAPI document is made too. It is read by hand and checked
afterwards, so that limits apply while it arrives and every error has one shape. Unknown fields are
ignored, because real clients send extras.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ..contract.errors import InvalidField
from ..contract.transcript import Speakers

F = TypeVar("F", bound=BaseModel)

_MOST_SPEAKERS = 100


class TrackField(BaseModel):
    """Which audio track of a file is meant."""

    track: int | None = Field(
        default=None, ge=0, description="audio track, from 0; else the default one, or the first"
    )


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
