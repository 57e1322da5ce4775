"""Reading the configuration file, with every problem in it at once.

`parse` turns text into frozen values or raises one error that lists all problems, each with its
line, column and key. A value that is in a `Config` has been checked; nobody checks it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Set
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from autostart_proxy import document, notation
from autostart_proxy.document import Entry, Node, Position
from autostart_proxy.errors import ConfigError
from autostart_proxy.keys import (
    DEFAULT_HOST,
    DEFAULT_LISTEN,
    Config,
    HealthConfig,
    Key,
    LogConfig,
    ServiceConfig,
    camel,
    rows,
    schema,
)

__all__ = ["Config", "HealthConfig", "Inspect", "LogConfig", "ServiceConfig", "parse", "schema"]

Inspect = Callable[[ServiceConfig], Iterable[tuple[str, str]]]
"""Looks at a well-formed service from outside, such as whether its folders exist, and returns each
key that it minds with the reason."""


def parse(text: str, *, source: str, inspect: Inspect = lambda _: ()) -> Config:
    """Read a configuration.

    Args:
        text: YAML if `source` ends in .yaml or .yml, else JSON.
        source: the file's name, for messages.
        inspect: what else to ask about each service; nothing by default.
    Raises:
        ConfigError: with all problems, in the order of the text.
    """
    reader = _Reader(inspect)
    try:
        config = reader.config(document.read(text, yaml=source.endswith((".yaml", ".yml"))))
    except document.NotADocument as error:
        raise ConfigError([_line(source, error.at, error.reason)]) from None
    if config is None:
        raise ConfigError([_line(source, at, words) for at, words in sorted(reader.problems)])
    return config


def _line(source: str, at: Position, words: str) -> str:
    return f"{source}:{at.line}:{at.column}: {words}"


def _join(path: str, key: str) -> str:
    if not key.isidentifier():
        return f"{path}[{json.dumps(key)}]"
    return f"{path}.{key}" if path else key


def _build(struct: Any, values: Mapping[str, Any]) -> Any:
    """Return a dataclass from values by our names; those of nested ones are dictionaries."""
    nested = {row.name: row.struct for row in rows(struct).values() if row.struct}
    return struct(
        **{
            name: _build(nested[name], value) if name in nested else value
            for name, value in values.items()
        }
    )


_BAD: Any = object()
"""Stands for a value that has been reported."""

_MEANT_ONLY_WITH = {"compose_dir": {"containers"}, "command": {"cwd", "env"}}
"""What a service can be made of, and the keys that mean something only then."""


class _Given(NamedTuple):
    """One object of the file: its keys as they stand there, and the values that could be read."""

    entries: Mapping[str, Entry]
    values: dict[str, Any]

    def unread(self) -> Set[str]:
        """Return the keys whose values have been reported."""
        return self.entries.keys() - set(map(camel, self.values))


class _Reader:
    """Goes through a document once and collects everything that is wrong with it."""

    def __init__(self, inspect: Inspect) -> None:
        self.problems: list[tuple[Position, str]] = []
        self._inspect = inspect
        self._owners: dict[Hashable, str] = {}
        self._projects: dict[Path, list[tuple[str, frozenset[str]]]] = {}

    def config(self, root: Node) -> Config | None:
        """Return the configuration, or None where there are problems."""
        top = self._given(root, "", Config, beside={"$schema", "defaults"})
        shared = _Given({}, {})
        if defaults := top.entries.get("defaults"):
            shared = self._given(defaults.node, "defaults", ServiceConfig)
        listen = notation.listen(top.values.get("listen", DEFAULT_LISTEN))
        if isinstance(listen, tuple):
            self._claim(_port(*listen), "the proxy itself (`listen`)")
        services: dict[str, ServiceConfig | None] = {}
        if entry := top.entries.get("services"):
            for key, each in self._entries(entry.node, "services").items():
                path = _join("services", key)
                host = self._read(notation.host, key, each.at, path, "")
                services[host] = self._service(each, path, host, shared)
        elif isinstance(root, document.Mapping):
            self._report(root.at, "services", 'missing; write at least "services": {}')
        return None if self.problems else _build(Config, {**top.values, "services": services})

    def _service(self, entry: Entry, path: str, host: Any, shared: _Given) -> ServiceConfig | None:
        """Return one service, or None where it has problems."""
        before = len(self.problems)
        own = self._given(entry.node, path, ServiceConfig)
        values = {"name": entry.key, **_layered(shared.values, own.values)}
        unread = shared.unread() | own.unread()

        def report_all(found: Iterable[tuple[str, str]]) -> None:
            for key, reason in found:
                at = own.entries[key].at if key in own.entries else entry.at
                self._report(at, _join(path, key) if key else path, reason)

        if isinstance(entry.node, document.Mapping):
            report_all(_contradictions(values, own.values, unread))
        report_all(self._conflicts(values, host, path))
        if len(self.problems) > before or "proxy_port" not in values:
            return None
        service: ServiceConfig = _build(ServiceConfig, values)
        report_all(self._inspect(service))
        return service

    def _conflicts(self, values: dict[str, Any], host: Any, path: str) -> Iterator[tuple[str, str]]:
        """Claim what only one service may have; yield what another has already."""
        for name in (host, *values.get("aliases", ())):
            if name is not _BAD and (owner := self._claim(name, path)):
                key = "" if name is host else "aliases"
                yield key, f"{name} stands at {owner} already; a host belongs to one service"
        if port := values.get("proxy_port"):
            address = values.get("proxy_host", DEFAULT_HOST)
            if owner := self._claim(_port(address, port), path):
                cure = "give it another one, or list further hosts of one service as `aliases`"
                yield "proxyPort", f"port {port} is used by {owner}; {cure}"
        if folder := values.get("compose_dir"):
            parts = frozenset(values.get("containers") or ())
            for owner, others in self._projects.setdefault(folder, []):
                if not parts or not others or parts & others:
                    cure = "name different `containers` at both, or one stops what the other uses"
                    yield "composeDir", f"{owner} has containers of the same project; {cure}"
            self._projects[folder].append((path, parts))

    def _claim(self, thing: Hashable, path: str) -> str | None:
        """Return who has the thing already; if nobody, it is taken now."""
        owner = self._owners.get(thing)
        self._owners.setdefault(thing, path)
        return owner

    def _given(self, node: Node, path: str, struct: Any, beside: Set[str] = frozenset()) -> _Given:
        """Read one object; its keys are those of the dataclass and those beside them."""
        known = rows(struct)
        entries = self._entries(node, path, known.keys() | beside)
        values = {}
        for key, entry in entries.items():
            row, place = known.get(key), _join(path, key)
            if row and row.struct:
                values[row.name] = self._given(entry.node, place, row.struct).values
            elif row and row.key.form:
                form, hint = row.key.form, _hint(row.key)
                value = self._read(
                    form.read, document.plain(entry.node), entry.node.at, place, hint
                )
                if value is not _BAD:
                    values[row.name] = value
        return _Given(entries, values)

    def _entries(self, node: Node, path: str, known: Set[str] | None = None) -> dict[str, Entry]:
        """Return an object's entries; report doubled and, where some are known, unknown ones."""
        if not isinstance(node, document.Mapping):
            self._report(node.at, path, "expected an object with keys and values")
            return {}
        entries: dict[str, Entry] = {}
        for entry in node.entries:
            place = _join(path, entry.key)
            if known is not None and entry.key not in known:
                self._report(entry.at, place, f"unknown key; {_near(entry.key, known)}")
            elif entry.key in entries:
                first = entries[entry.key].at.line
                self._report(entry.at, place, f"stands in line {first} already; remove one")
            else:
                entries[entry.key] = entry
        return entries

    def _read(
        self, read: Callable[[Any], Any], value: object, at: Position, path: str, hint: str
    ) -> Any:
        try:
            return read(value)
        except ValueError as error:
            reason = str(error)
            self._report(at, path, reason if ";" in reason else reason + hint)
            return _BAD

    def _report(self, at: Position, path: str, reason: str) -> None:
        self.problems.append((at, f"{path}: {reason}" if path else reason))


def _layered(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Put a service's own values over the defaults; those of `health` and `env` key by key.

    What the service is made of is one decision: with a `command` of its own, the defaults'
    `composeDir` and what belongs to it do not count, and the other way round.
    """
    made_of = next((kind for kind in _MEANT_ONLY_WITH if own.get(kind)), None)
    for kind, meant_with_it in _MEANT_ONLY_WITH.items():
        if made_of not in (None, kind):
            shared = {k: v for k, v in shared.items() if k not in {kind, *meant_with_it}}
    merged = {**shared, **own}
    for key in ("health", "env"):
        if key in shared and key in own:
            merged[key] = {**shared[key], **own[key]}
    return merged


def _contradictions(
    values: Mapping[str, Any], own: Mapping[str, Any], unread: Set[str]
) -> Iterator[tuple[str, str]]:
    """Yield the keys of a service that are missing or do not go together."""
    if "proxy_port" not in values and "proxyPort" not in unread:
        yield "proxyPort", "missing; write the port on which the service listens"
    # A kind that could not be read has been reported: it counts as there.
    kinds = {
        kind for kind in _MEANT_ONLY_WITH if values.get(kind) is not None or camel(kind) in unread
    }
    if not kinds:
        yield "composeDir", "missing; a service has either composeDir or command"
    elif len(kinds) == len(_MEANT_ONLY_WITH):
        yield "command", "a service has either composeDir or command; remove one of them"
    else:
        for kind in _MEANT_ONLY_WITH.keys() - kinds:
            for name in sorted(_MEANT_ONLY_WITH[kind]):
                if own.get(name):
                    yield name, f"means something only with {camel(kind)}; remove it"


def _hint(key: Key) -> str:
    """Return how to write a value right, as the end of a sentence."""
    shown = [json.dumps(example) for example in key.examples]
    return f"; for example {' or '.join(shown)}" if shown else ""


def _near(key: str, known: Set[str]) -> str:
    """Return what may have been meant by an unknown key."""
    if key in rows(ServiceConfig):
        return "it belongs to a service, or to `defaults`"
    if key in rows(Config):
        return "it belongs to the top level of the file"
    spelt = {name.lower(): name for name in known}
    near = get_close_matches(key.replace("_", "").lower(), spelt, n=1)
    if near:
        return f"did you mean {spelt[near[0]]}?"
    return f"known here: {', '.join(sorted(known))}"


_LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"})  # noqa: S104


def _port(host: str, port: int) -> tuple[str, int]:
    """Return what two listeners cannot share."""
    return ("localhost" if host in _LOCAL_HOSTS else host, port)
