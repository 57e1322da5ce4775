"""Positions of values, and what is refused as no document."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autostart_proxy.config.source_text import (
    MAX_LENGTH,
    Mapping,
    Node,
    NotADocument,
    Position,
    Scalar,
    Sequence,
    doubled,
    find,
    plain,
    read,
)

NO_SURROGATES = st.characters(exclude_categories=["Cs"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(NO_SURROGATES),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(NO_SURROGATES), inner, max_size=4)
    ),
    max_leaves=12,
)
# What PyYAML can write and read back; it knows no other control characters.
PLAIN_TEXT = st.text("abc:#-? äß\t\"'")


def refusal(text: str, *, as_yaml: bool = False) -> tuple[Position, str]:
    with pytest.raises(NotADocument) as caught:
        read(text, yaml=as_yaml)
    return caught.value.at, caught.value.reason


@given(VALUES, st.sampled_from([None, 1, "\t"]))
def test_json_is_read_as_the_standard_decoder_reads_it(value: object, indent: int | str) -> None:
    assert plain(read(json.dumps(value, indent=indent), yaml=False)) == value


@given(
    st.dictionaries(PLAIN_TEXT, st.lists(PLAIN_TEXT | st.integers() | st.booleans()) | st.none())
)
def test_yaml_is_read_as_pyyaml_reads_it(value: object) -> None:
    assert plain(read(yaml.safe_dump(value), yaml=True)) == value


JSON = """\
{
\t"a": [1,
    {"b" : null}],
  "ä": "x", "a": {}, "e": []
}
"""


def test_every_key_and_value_of_json_knows_its_place() -> None:
    root = read(JSON, yaml=False)
    assert isinstance(root, Mapping)
    assert root.at == (1, 1)
    first, second, third, fourth = root.entries
    assert [(each.key, each.at) for each in root.entries] == [
        ("a", (2, 2)),
        ("ä", (4, 3)),
        ("a", (4, 13)),
        ("e", (4, 22)),
    ]
    assert isinstance(first.node, Sequence)
    assert first.node.at == (2, 7)
    assert first.node.items[0] == Scalar(Position(2, 8), 1)
    inner = first.node.items[1]
    assert isinstance(inner, Mapping)
    assert inner.entries[0].node == Scalar(Position(3, 12), None)
    assert second.node == Scalar(Position(4, 8), "x")
    assert third.node == Mapping(Position(4, 18), ())
    assert fourth.node == Sequence(Position(4, 27), ())


def test_every_key_and_value_of_yaml_knows_its_place() -> None:
    root = read("# first\na: 1\nb:\n  - x\n  - {c: true}\n", yaml=True)
    assert isinstance(root, Mapping)
    assert [(each.key, each.at) for each in root.entries] == [("a", (2, 1)), ("b", (3, 1))]
    assert root.entries[0].node == Scalar(Position(2, 4), 1)
    items = root.entries[1].node
    assert isinstance(items, Sequence)
    assert items.items[0] == Scalar(Position(4, 5), "x")
    assert items.items[1].at == (5, 5)


def test_of_doubled_keys_both_are_there_and_the_first_counts() -> None:
    for as_yaml in (False, True):
        root = read('{"a": 1, "a": 2}', yaml=as_yaml)
        assert isinstance(root, Mapping)
        assert [entry.at.column for entry in root.entries] == [2, 10]
        assert plain(root) == {"a": 1}
        assert list(doubled(root)) == [(Position(1, 10), ("a",), Position(1, 2))]


def test_keys_are_doubled_within_one_object_only() -> None:
    text = '[{"a": {"b": 1}, "b": 2},\n {"a": {"c": 1, "c": 1, "c": 1}}, {"a": 3}]'
    assert list(doubled(read(text, yaml=False))) == [
        (Position(2, 17), (1, "a", "c"), Position(2, 9)),
        (Position(2, 25), (1, "a", "c"), Position(2, 9)),
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ((), ((1, 1), (1, 1), 0)),
        (("a",), ((1, 2), (1, 7), 1)),
        (("a", 1), ((1, 11), (1, 11), 2)),
        (("a", 1, "b"), ((1, 12), (1, 17), 3)),
        (("a", 1, "c"), ((1, 11), (1, 11), 2)),
        (("a", 0, "c"), ((1, 8), (1, 8), 2)),
        (("a", "b"), ((1, 2), (1, 7), 1)),
        (("a", 2), ((1, 2), (1, 7), 1)),
        (("b", "a"), ((1, 1), (1, 1), 0)),
    ],
)
def test_a_path_is_followed_as_far_as_it_leads(path: tuple[str | int, ...], found: object) -> None:
    assert find(read('{"a": [1, {"b": 2}]}', yaml=False), path) == found


@pytest.mark.parametrize(
    ("text", "at", "cure"),
    [
        ('{"a": 1,}', (1, 9), "remove the comma"),
        ('{"a": [1,\n]}', (2, 1), "remove the comma"),
        ('{"a" 1}', (1, 6), "colon"),
        ('{"a": 1 "b": 2}', (1, 9), "comma"),
        ("{a: 1}", (1, 2), "key in double quotes"),
        ("{'a': 1}", (1, 2), "double quotes"),
        ('{"a": 1 // x\n}', (1, 9), "no comments"),
        ('{"a": 1, /* x */ "b": 2}', (1, 10), "no comments"),
        ("# x\n{}", (1, 1), "no comments"),
        ('{"a": True}', (1, 7), "write true"),
        ('{"a": None}', (1, 7), "write null"),
        ('{"a":', (1, 6), "half-written"),
        ('{"a": {"b": 1}', (1, 15), "half-written"),
        ('{"a": "x', (1, 7), "closing quote"),
        ('{"a": "x\n"}', (1, 9), "close it"),
        ('{"a": "\\x"}', (1, 8), "escape"),
        ("{}\n{}", (2, 1), "more text"),
        ('{"a": NaN}', (1, 7), "finite"),
        ('{"a": -1e999}', (1, 7), "finite"),
        ('{"a": "\\ud800"}', (1, 7), "surrogate"),
        ('{"\\udfff": 1}', (1, 2), "surrogate"),
        ("9" * 5000, (1, 1), "digits"),
        ("[" * 100_000, (1, 1), "nested"),
    ],
)
def test_a_syntax_error_in_json_names_place_and_cure(
    text: str, at: tuple[int, int], cure: str
) -> None:
    place, reason = refusal(text)
    # Since Python 3.13 the decoder points at the comma itself.
    assert place == at or (cure == "remove the comma" and place < at)
    assert cure in reason


@pytest.mark.parametrize(
    ("text", "at", "cure"),
    [
        ("a: 1\n\tb: 2\n", (2, 1), "indent with spaces"),
        ("a: [1\nb: 2", (2, 2), "expected ',' or ']'"),
        ("a: b: c", (1, 5), "not allowed here"),
        ("a: @x", (1, 4), "quotes"),
        ("a: 1\n---\nb: 2\n", (2, 1), "another document"),
        ("a: 1\nb: x\x01", (2, 5), "control character"),
        ("a: &x 1\nb: *x", (1, 4), "alias"),
        ("&x [*x]", (1, 1), "alias"),
        ("a: 2020-01-01", (1, 4), "quotes"),
        ("a: 1:30", (1, 4), "quotes"),
        ("a: !!python/name:os.system x", (1, 4), "quotes"),
        ("8001: x", (1, 1), "key must be a string"),
        ("? [a]\n: x", (1, 3), "key must be a string"),
        ("a: .inf", (1, 4), "finite"),
        ('a: "\\ud800"', (1, 4), "surrogate"),
        (f"a: {'9' * 5000}", (1, 4), "digits"),
        ("# nothing", (1, 1), "empty"),
        ("[\n" * 1000, (1, 1), "nested"),
    ],
)
def test_a_mistake_in_yaml_names_place_and_cure(text: str, at: tuple[int, int], cure: str) -> None:
    assert refusal(text, as_yaml=True)[0] == at
    assert cure in refusal(text, as_yaml=True)[1]


@pytest.mark.parametrize("as_yaml", [False, True])
@pytest.mark.parametrize("text", ["", " \n\n"])
def test_an_empty_file_is_no_document(text: str, as_yaml: bool) -> None:
    assert refusal(text, as_yaml=as_yaml) == ((1, 1), "the file is empty")


def test_an_overlong_file_is_refused_unread() -> None:
    assert "longer" in refusal("[" + " " * MAX_LENGTH + "]")[1]


def test_values_without_a_place_of_their_own_are_plain() -> None:
    node: Node = Sequence(Position(1, 1), (Scalar(Position(1, 2), None),))
    assert plain(node) == [None]
