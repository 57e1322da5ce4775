"""The files that a Compose file names. Pure.

Compose does not tell which files it has read, so they are looked for in the text: wherever a key
stands that names files for Compose to read. Rather too many than too few: one that Compose does
not read costs a question to Compose when it changes, one that is missed would be a change that
nobody notices. What is merely mounted into a container is not read by Compose.

https://github.com/compose-spec/compose-spec/blob/main/spec.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

KEYS = ("include", "extends", "env_file", "label_file")


class Unreadable(Exception):
    """The text is no YAML, or none that is understood here."""


@dataclass(frozen=True, slots=True)
class Include:
    """One entry of `include`: files that are merged, their folder and what is set for them."""

    paths: tuple[str, ...]
    project_directory: str = ""
    env_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class References:
    """What one Compose file names, as it is written: variables are not replaced.

    Attributes:
        values: files whose content becomes part of a service: `env_file`, `label_file`.
        extended: Compose files with services that others are made from.
    """

    includes: tuple[Include, ...] = ()
    extended: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


def references(text: str) -> References:
    """Read a Compose file.

    Raises:
        Unreadable: it cannot be read as YAML.
    """
    if not any(key in text for key in KEYS):
        return References()
    import yaml  # most projects name no files

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.compose_all(text, Loader=loader))
    except yaml.YAMLError as error:
        raise Unreadable(str(error)) from error
    includes: list[Include] = []
    for document in documents:
        for key, value in _entries(document):
            if key == "include":
                includes.extend(map(_include, _items(value)))
    entries = [entry for document in documents for entry in _all_entries(document)]
    return References(
        tuple(includes),
        tuple(name for key, value in entries if key == "extends" for name in _at(value, "file")),
        tuple(
            name
            for key, value in entries
            if key in ("env_file", "label_file")
            for name in _paths(value)
        ),
    )


def _include(entry: yaml.Node) -> Include:
    if not _entries(entry):
        return Include(tuple(_paths(entry)))
    return Include(
        tuple(_at(entry, "path")),
        next(iter(_at(entry, "project_directory")), ""),
        tuple(_at(entry, "env_file")),
    )


def _entries(node: yaml.Node | None) -> list[tuple[str, yaml.Node]]:
    """The keys and values of a mapping; of anything else, none."""
    pairs = _listed(node)
    return [(str(each[0].value), each[1]) for each in pairs if isinstance(each, tuple)]


def _items(node: yaml.Node) -> list[yaml.Node]:
    """The items of a list; anything else stands for itself."""
    items = _listed(node)
    is_list = isinstance(node.value, list) and not any(isinstance(each, tuple) for each in items)
    return items if is_list else [node]


def _listed(node: yaml.Node | None) -> list[Any]:
    """What a node consists of: nodes in a list, pairs of them in a mapping."""
    return node.value if node is not None and isinstance(node.value, list) else []


def _all_entries(root: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    """The keys and values of all mappings, however deep; what is aliased comes once."""
    seen: set[int] = set()
    waiting = [] if root is None else [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        entries = _entries(node)
        yield from entries
        waiting.extend(value for _, value in entries)
        waiting.extend(each for each in _items(node) if each is not node)


def _at(node: yaml.Node, wanted: str) -> list[str]:
    return [name for key, value in _entries(node) if key == wanted for name in _paths(value)]


def _paths(node: yaml.Node) -> Iterator[str]:
    """The paths that a value names: one, a list of them, or mappings with `path`."""
    for each in _items(node):
        if isinstance(each.value, str):
            yield each.value
        else:
            yield from _at(each, "path")
