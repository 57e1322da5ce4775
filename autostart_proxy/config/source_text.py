"""JSON or YAML text as values that know where they stand in the text.

A configuration error is only as good as the line it names. The parsers of the standard library
and of PyYAML decide what is valid; this module keeps line and column of every key and value, and
refuses what the parsers would swallow: doubled keys, NaN, dates, aliases.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.decoder import JSONDecodeError, JSONDecoder
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import yaml

MAX_LENGTH = 1024 * 1024
"""Characters; a longer file is a mistake."""


class Position(NamedTuple):
    """Line and column in a text; both count from 1."""

    line: int
    column: int


class NotADocument(Exception):
    """The text is not one valid JSON or YAML document."""

    def __init__(self, at: Position, reason: str) -> None:
        self.at = at
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, a number, true, false or null."""

    at: Position
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    at: Position
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of an object and its value; `at` is the key's place."""

    at: Position
    key: str
    node: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """An object; entries in the order of the text, doubled keys included."""

    at: Position
    entries: tuple[Entry, ...]


Node: TypeAlias = Scalar | Sequence | Mapping


def read(text: str, *, yaml: bool) -> Node:
    """Return the text's one document.

    Args:
        text: JSON (RFC 8259), or YAML 1.1 if `yaml`; at most `MAX_LENGTH` characters.
    Raises:
        NotADocument: at the first syntax error.
    """
    if len(text) > MAX_LENGTH:
        raise NotADocument(Position(1, 1), f"the file is longer than {MAX_LENGTH} characters")
    if not text.strip():
        raise NotADocument(Position(1, 1), "the file is empty")
    try:
        return _Yaml(text).read() if yaml else _Json(text).read()
    except RecursionError:
        raise NotADocument(Position(1, 1), "the values are nested too deeply") from None


def plain(node: Node) -> object:
    """Return the node as an ordinary value; of doubled keys the first one counts."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    values: dict[str, object] = {}
    for entry in node.entries:
        if entry.key not in values:
            values[entry.key] = plain(entry.node)
    return values


class Found(NamedTuple):
    """How far a path leads: places of the last key or item on it and of its value."""

    key: Position
    value: Position
    depth: int


def find(node: Node, path: Iterable[str | int]) -> Found:
    """Follow keys and indices (from 0) as far as they are there."""
    found = Found(node.at, node.at, 0)
    for part in path:
        if isinstance(node, Mapping):
            entry = next((entry for entry in node.entries if entry.key == part), None)
            if entry is None:
                break
            key, node = entry.at, entry.node
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            key = node.at
        else:
            break
        found = Found(key, node.at, found.depth + 1)
    return found


class Doubled(NamedTuple):
    """A key that stands in its object already, and the place where it stood first."""

    at: Position
    path: tuple[str | int, ...]
    first: Position


def doubled(node: Node, path: tuple[str | int, ...] = ()) -> Iterator[Doubled]:
    """Yield every key that stands in its object already."""
    if isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from doubled(item, (*path, index))
    elif isinstance(node, Mapping):
        first: dict[str, Position] = {}
        for entry in node.entries:
            there = (*path, entry.key)
            if entry.key in first:
                yield Doubled(entry.at, there, first[entry.key])
            else:
                first[entry.key] = entry.at
                yield from doubled(entry.node, there)


class _Json:
    """Positions for a text that the standard decoder has accepted.

    The decoder tells no positions of valid values. It is still the only judge: it has read the
    whole text before, and reads each string and number again here.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._decoder = JSONDecoder()
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def read(self) -> Node:
        try:
            self._decoder.decode(self._text)
        except JSONDecodeError as error:
            at = Position(error.lineno, error.colno)
            raise NotADocument(at, _syntax_problem(self._text, error)) from None
        except ValueError:
            raise NotADocument(Position(1, 1), "a number has too many digits") from None
        return self._node(self._skip(0))[0]

    def _node(self, index: int) -> tuple[Node, int]:
        """Return the value that begins at the index, and the index behind it."""
        at = self._position(index)
        match self._text[index]:
            case "{":
                return self._mapping(at, index)
            case "[":
                return self._sequence(at, index)
            case _:
                value, end = self._decoder.raw_decode(self._text, index)
                return _scalar(at, value), end

    def _mapping(self, at: Position, index: int) -> tuple[Node, int]:
        entries: list[Entry] = []
        while self._text[index := self._skip(index + 1)] != "}":
            key, end = self._decoder.raw_decode(self._text, index)
            node, end_of_value = self._node(self._skip(self._skip(end) + 1))
            entries.append(Entry(self._position(index), _checked(key, self._position(index)), node))
            if self._text[index := self._skip(end_of_value)] == "}":
                break
        return Mapping(at, tuple(entries)), index + 1

    def _sequence(self, at: Position, index: int) -> tuple[Node, int]:
        items: list[Node] = []
        while self._text[index := self._skip(index + 1)] != "]":
            node, end = self._node(index)
            items.append(node)
            if self._text[index := self._skip(end)] == "]":
                break
        return Sequence(at, tuple(items)), index + 1

    def _skip(self, index: int) -> int:
        """Return the index of the first character that is not white space."""
        while self._text[index] in " \t\n\r":
            index += 1
        return index

    def _position(self, index: int) -> Position:
        line = bisect_right(self._line_starts, index)
        return Position(line, index - self._line_starts[line - 1] + 1)


def _syntax_problem(text: str, error: JSONDecodeError) -> str:
    """Return what is wrong at the decoder's error and how to cure it."""
    before, after = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    # Until Python 3.13 the decoder stops behind a comma too many, since then at it.
    if (before.endswith(",") and after[:1] in ("}", "]")) or re.match(r",\s*[}\]]", after):
        return "a comma before a closing bracket; remove the comma"
    if after.startswith(("//", "/*", "#")):
        return "JSON has no comments; remove it, or write YAML and name the file .yaml"
    if after.startswith("'"):
        return "strings and keys stand in double quotes, not in single ones"
    if literal := re.match(r"(True|False|None)\b", after):
        cure = {"True": "true", "False": "false", "None": "null"}[literal[1]]
        return f"{literal[1]} is no JSON; write {cure}"
    if not after:
        return f"{_SAID[error.msg]}, and the file ends here; is it only half-written?"
    return _SAID[error.msg]


class _Said(dict[str, str]):
    """The decoder's words in ours; what is not listed stays as it is."""

    def __missing__(self, words: str) -> str:
        return words


_SAID = _Said(
    {
        "Expecting value": "expected a value",
        "Expecting ',' delimiter": "expected a comma or a closing bracket",
        "Expecting ':' delimiter": "expected a colon between key and value",
        "Expecting property name enclosed in double quotes": "expected a key in double quotes",
        "Extra data": "more text behind the end of the document; remove it",
        "Invalid control character at": "a line ends inside a string; close it with a quote",
        "Unterminated string starting at": "a string without closing quote",
    }
)


class _Yaml:
    """A YAML document's nodes.

    Plain scalars are read as YAML 1.1 reads them, but only into what JSON has too: an unquoted
    date or 1:30 would otherwise arrive as something that nobody wrote.
    """

    def __init__(self, text: str) -> None:
        # Imported here: most configurations are JSON, and this costs 2 MB and 14 ms.
        import yaml

        self._text = text
        self._yaml = yaml
        self._constructor = yaml.constructor.SafeConstructor()
        self._seen: set[int] = set()

    def read(self) -> Node:
        try:
            root = self._yaml.compose(self._text, Loader=self._yaml.SafeLoader)
        except self._yaml.MarkedYAMLError as error:
            at = _at(error.problem_mark)
            # An unquoted value may look like a name, and be a password.
            reason = re.sub(r"\b(alias|anchor|tag handle) ['\"].*['\"]", r"\1", str(error.problem))
            if reason.endswith(("any token", "alias", "anchor", "tag handle")):
                reason += "; indent with spaces, and put quotes around special characters"
            raise NotADocument(at, reason) from None
        except self._yaml.reader.ReaderError as error:
            before = self._text[: error.position]
            at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
            raise NotADocument(at, "a control character; remove it") from None
        if root is None:
            raise NotADocument(Position(1, 1), "the file is empty")
        return self._node(root)

    def _node(self, node: yaml.Node) -> Node:
        at = _at(node.start_mark)
        if id(node) in self._seen:
            raise NotADocument(
                at, "an alias (*name) is not accepted; `defaults` serves all services"
            )
        self._seen.add(id(node))
        if isinstance(node, self._yaml.MappingNode):
            return Mapping(at, tuple(self._entry(key, value) for key, value in node.value))
        if isinstance(node, self._yaml.SequenceNode):
            return Sequence(at, tuple(self._node(item) for item in node.value))
        return self._leaf(at, node)

    def _entry(self, key: yaml.Node, value: yaml.Node) -> Entry:
        name = self._node(key)
        if not isinstance(name, Scalar) or not isinstance(name.value, str):
            raise NotADocument(name.at, "a key must be a string; put it in quotes")
        return Entry(name.at, name.value, self._node(value))

    def _leaf(self, at: Position, node: yaml.Node) -> Scalar:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        is_number = kind in ("int", "float")
        if kind not in ("bool", "null", "str") and (not is_number or ":" in node.value):
            read_as = kind if kind in ("int", "float", "merge", "timestamp") else "tag"
            raise NotADocument(at, f"this is read as a {read_as}; put it in quotes")
        try:
            return _scalar(at, self._constructor.construct_object(node))
        except ValueError:
            raise NotADocument(at, "a number has too many digits") from None


def _at(mark: yaml.Mark | None) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)


def _scalar(at: Position, value: str | int | float | bool | None) -> Scalar:
    if isinstance(value, float) and not isfinite(value):
        raise NotADocument(at, "a number must be finite")
    return Scalar(at, _checked(value, at) if isinstance(value, str) else value)


def _checked(text: str, at: Position) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise NotADocument(at, "half of a surrogate pair is no character")
    return text
