"""How a form is read, and what is said where it cannot be."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import field_validator
from speech_service.contract.errors import InvalidField, InvalidRequest
from speech_service.contract.transcript import Speakers
from speech_service.http.forms import SpeakerFields, json_object, parse
from speech_service.http.spellings import Form


class Inner(Form):
    threshold: float


class Filled(Form):
    count: int = 1
    names: list[int] = []
    inner: Inner | None = None
    either: Literal["auto"] | Inner | None = None

    @field_validator("count")
    @classmethod
    def small(cls, value: int) -> int:
        if value > 9:
            raise ValueError("at most 9")
        return value


def test_a_form_knows_what_it_is_given_and_ignores_the_rest() -> None:
    assert parse(Filled, {"count": "2", "else": "x"}) == Filled(count=2)


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"count": "many"}, "count", "valid integer"),
        ({"count": "10"}, "count", "count: at most 9"),
        ({"names": ["1", "b"]}, "names", "valid integer"),
        ({"inner": {"threshold": "x"}}, "inner.threshold", "valid number"),
        ({"inner": {}}, "inner.threshold", "required"),
        ({"inner": "high"}, "inner", "must be an object"),
        ({"either": "no"}, "either", "'auto'"),
        ({"either": {"threshold": "x"}}, "either.threshold", "valid number"),
        ({"count": ["1", "2"]}, "count", "must be one value"),
        ({"count": {"a": "1"}}, "count", "must be one value"),
    ],
)
def test_the_first_field_at_fault_is_named(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parse(Filled, fields)
    assert refused.value.param == param
    assert says in refused.value.message
    assert "Value error" not in refused.value.message and "Inner" not in refused.value.message


@pytest.mark.parametrize(
    ("fields", "speakers"),
    [
        ({}, Speakers()),
        ({"num_speakers": 2}, Speakers(2)),
        ({"min_speakers": 2, "max_speakers": 2}, Speakers(None, 2, 2)),
        ({"num_speakers": 2, "min_speakers": 1, "max_speakers": 3}, Speakers(2, 1, 3)),
        ({"num_speakers": 1, "min_speakers": 2}, None),
        ({"num_speakers": 4, "max_speakers": 3}, None),
        ({"min_speakers": 3, "max_speakers": 2}, None),
    ],
)
def test_numbers_of_speakers_must_be_possible(
    fields: dict[str, int], speakers: Speakers | None
) -> None:
    form = SpeakerFields(**fields)  # type: ignore[arg-type]
    if speakers:
        assert form.speakers() == speakers
        return
    with pytest.raises(InvalidField, match="contradict each other"):
        form.speakers()


@pytest.mark.parametrize(
    "text", [None, "", "[]", "1", '{"a":' * 20_000, '"\\ud800"', '{"a":"\\ud800"}']
)
def test_what_is_no_json_object_is_named(text: str | None) -> None:
    with pytest.raises(InvalidRequest, match="the body must be a JSON object"):
        json_object(text, "the body")


def test_a_json_object_is_taken_as_it_is() -> None:
    assert json_object('{"a": "\\u00e9", "b": [1]}') == {"a": "é", "b": [1]}
