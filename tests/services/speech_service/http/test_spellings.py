"""Fields as clients spell them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError
from speech_service.http.spellings import Form, FreeText, WholeValues, nested


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], {}),
        ([("k", "1")], {"k": "1"}),
        ([("k[]", "1")], {"k": ["1"]}),
        ([("k[0]", "1")], {"k": ["1"]}),
        ([("k[]", "1"), ("k[]", "2")], {"k": ["1", "2"]}),
        ([("k[0]", "1"), ("k[1]", "2")], {"k": ["1", "2"]}),
        ([("k", "1"), ("k", "2"), ("k[]", "3")], {"k": ["1", "2", "3"]}),
        ([("k[a]", "1"), ("k[b]", "2")], {"k": {"a": "1", "b": "2"}}),
        ([("k", ""), ("k[a]", "2")], {"k": {"a": "2"}}),
        ([("k", "1"), ("k[a]", "2")], {"k": [{"a": "2"}, "1"]}),
        ([("[]", "1"), ("a[b][c]", "1")], {}),
    ],
)
def test_names_with_brackets_belong_together(
    pairs: list[tuple[str, str]], expected: dict[str, Any]
) -> None:
    assert nested(pairs) == expected


class Shape(StrEnum):
    JSON = "json"
    VERBOSE_JSON = "verbose_json"


class Vad(Form):
    threshold: float | None = None


class Wish(Form):
    shape: Shape = Shape.JSON
    grain: list[Literal["word", "segment"]] = ["segment"]
    names: list[str] = []
    urls: Annotated[list[str], WholeValues()] = []
    count: int | None = None
    on: bool = True
    model: str | None = None
    vad: Literal["auto"] | Vad | None = None
    prompt: Annotated[str | None, FreeText()] = None
    hotwords: Annotated[str | None, FreeText(", ", is_list=True)] = None


JSON = ["JSON", "Json", " json\r\n", '"json"', "'json'", ["json", "JSON "], '["json"]']
WORD = ["word", "Word", ["word"], "[word]", '["word"]', ["word", "word"], "'word'", '"word"']
BOTH = [
    *("word,segment", "word, Segment", '["word","segment"]', "[word, segment]"),
    *(["word", "segment"], ["word,segment"]),
]
NEITHER = ["", [], [""], "[]", "null", None]


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        *(("shape", value, "json") for value in JSON),
        ("shape", "Verbose-JSON", "verbose_json"),
        *(("grain", value, ["word"]) for value in WORD),
        *(("grain", value, ["word", "segment"]) for value in BOTH),
        *(("grain", value, ["segment"]) for value in NEITHER),
        ("names", ["a", "b,c"], ["a", "b", "c"]),
        *(("urls", value, ["data:a,b"]) for value in ("data:a,b", ["data:a,b"], '["data:a,b"]')),
        ("urls", ["data:a,b", "data:a,b"], ["data:a,b", "data:a,b"]),
        *(("urls", value, []) for value in NEITHER),
        *(("count", value, 2) for value in ("2", " 2 ", 2, ["2", "2"], '"2"')),
        *(("count", value, None) for value in ("", " ", "null", "undefined", "None", None)),
        *(("on", value, False) for value in ("false", "False", " FALSE ", "0", "off", False)),
        *(("on", value, True) for value in ("", "null", "true", "1")),
        ("model", '"tiny"', "tiny"),
        ("model", ["tiny", "tiny"], "tiny"),
        ("vad", "Auto", "auto"),
        ("vad", '{"threshold": 0.5}', Vad(threshold=0.5)),
        ("vad", {"threshold": " 0.5 "}, Vad(threshold=0.5)),
        ("prompt", " Hello, [world] ", " Hello, [world] "),
        ("prompt", '["a"]', '["a"]'),
        ("prompt", ["a", "b", "a"], "a b"),
        *(("prompt", value, None) for value in ("", "undefined", "null", None, [], [""])),
        ("hotwords", "Fresnel,Eddystone", "Fresnel,Eddystone"),
        ("hotwords", ["Fresnel", "Eddystone"], "Fresnel, Eddystone"),
        ("hotwords", '["Fresnel", "Eddystone"]', "Fresnel, Eddystone"),
        ("hotwords", "[Fresnel]", "[Fresnel]"),
    ],
)
def test_a_value_is_read_however_it_is_written(field: str, value: Any, read: Any) -> None:
    assert getattr(Wish.model_validate({field: value, "extra": "x"}), field) == read


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", "srt"),
        ("shape", ["json", "verbose_json"]),
        ("grain", "words"),
        ("grain", {"a": "word"}),
        ("grain", ["word", 7]),
        ("count", ["1", "2"]),
        ("count", "[" * 100_000),
        ("model", ["a", "b"]),
        ("vad", "{"),
        ("vad", "manual"),
        ("prompt", 7),
        ("prompt", {"a": "b"}),
        ("hotwords", ["a", 1]),
    ],
)
def test_what_cannot_be_read_is_left_to_the_form_to_refuse(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        Wish.model_validate({field: value})
    assert refused.value.errors()[0]["loc"][0] == field


def test_what_is_no_object_is_no_form() -> None:
    with pytest.raises(ValidationError):
        Wish.model_validate("json")
