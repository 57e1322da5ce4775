"""Fields as clients spell them: brackets, JSON, comma lists, and the many ways to leave one out.

Rules: a value that says nothing (empty, `null`, `undefined`) is left out; blanks and quotes around
a value, and the case of a choice, do not matter; a field that comes twice with one value came once.
Text for the model is taken as it is. What cannot be read so is left to the form to refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

_KEY = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
_NOTHING = frozenset({"", "null", "undefined", "none"})
_SILENT = (None, "", "null", "undefined")
"""What says nothing where `none` may be a word."""


@dataclass(frozen=True, slots=True)
class FreeText:
    """Marks a field whose text is meant for the model: it is not to be tidied.

    Args:
        joint: what several values are joined by.
        is_list: whether they may also come as a list in JSON.
    """

    joint: str = " "
    is_list: bool = False


class WholeValues:
    """Marks a list whose values may hold commas: they come one by one, or as a list in JSON."""


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a form or a query by their names.

    Args:
        pairs: names, as `key`, `key[]`, `key[0]` or `key[sub]`, and values.
    Returns:
        A value for `key`, a list where it is repeated or has brackets, a dict for `key[sub]`.
    """
    found: dict[str, list[tuple[str | None, Any]]] = {}
    for key, value in pairs:
        if match := _KEY.fullmatch(key.strip()):
            found.setdefault(match[1], []).append((match[2], value))
    return {name: _gathered(entries) for name, entries in found.items()}


def _gathered(entries: list[tuple[str | None, Any]]) -> Any:
    members = {sub: value for sub, value in entries if sub and not sub.isdecimal()}
    rest = [value for sub, value in entries if not sub or sub.isdecimal()]
    if members:
        return [members, *rest] if any(rest) else members
    return rest if len(rest) > 1 or entries[0][0] is not None else rest[0]


class Form(BaseModel):
    """Fields that a client fills in; those it has beside them are ignored, as clients send more."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _as_clients_spell(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        read = {
            name: _read(fields[name], field)
            for name, field in cls.model_fields.items()
            if name in fields
        }
        return {name: value for name, value in read.items() if value is not None}


def _read(value: Any, field: FieldInfo) -> Any:
    """Return the value of one field in the spelling that its type knows, None for nothing."""
    free = next((mark for mark in field.metadata if isinstance(mark, FreeText)), None)
    if free:
        return _text(value, free)
    if any(isinstance(mark, WholeValues) for mark in field.metadata):
        return [one for one in _values(value, is_list=False) if one not in _SILENT] or None
    if not (is_list := _is_list(field.annotation)) and isinstance(value, dict):
        return value
    choices = _choices(field.annotation)
    values = [_token(one, choices) for one in _values(value, is_list)]
    values = [one for n, one in enumerate(values) if one is not None and one not in values[:n]]
    if is_list or len(values) > 1:
        return values or None
    return values[0] if values else None


def _text(value: Any, mark: FreeText) -> Any:
    if mark.is_list and isinstance(value, str) and value.lstrip().startswith("["):
        value = _written(value, is_list=False)
    values = value if isinstance(value, list) else [value]
    texts = [one for one in values if one not in _SILENT]
    if not all(isinstance(one, str) for one in texts):
        return value
    return mark.joint.join(dict.fromkeys(texts)) or None


def _values(value: Any, is_list: bool) -> list[Any]:
    """Return the single values of a field."""
    values = value if isinstance(value, list) else [value]
    return [one for each in values for one in _written(each, is_list)]


def _written(value: Any, is_list: bool) -> list[Any]:
    """Return what is written as one value: in JSON, as a list in brackets or with commas."""
    if not isinstance(value, str):
        return [value]
    text = value.strip()
    if text.startswith(("[", "{", '"')):
        with suppress(ValueError, RecursionError):
            read = json.loads(text)
            return read if isinstance(read, list) else [read]
    return text.strip("[]").split(",") if is_list else [text]


def _token(value: Any, choices: frozenset[str]) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip().strip("'\"").strip()
    folded = text.casefold()
    if folded in choices:
        return folded
    if folded.replace("-", "_") in choices:
        return folded.replace("-", "_")
    return None if folded in _NOTHING else text


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _choices(annotation: Any) -> frozenset[str]:
    """Return the words that a field may consist of, if it is a choice."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return frozenset(str(member.value) for member in annotation)
    if get_origin(annotation) is Literal:
        return frozenset(str(choice) for choice in get_args(annotation))
    return frozenset().union(*map(_choices, get_args(annotation)))
