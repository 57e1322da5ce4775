"""The configuration's text: read into models, with every problem in it at once. Pure.

`read` turns text into frozen models or raises one error that lists all problems, each with its
line, column and key. What is wrong with the world rather than the text, such as a folder that is
not there, concerns one service only: it is listed, and the others can be run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from autostart_proxy.config import source_text, values
from autostart_proxy.config.model import MADE_OF, Config, File, ServiceConfig
from autostart_proxy.config.source_text import Node, Position
from autostart_proxy.errors import ConfigError

Inspect = Callable[[Mapping[str, ServiceConfig]], Iterable[tuple[str, str, str]]]
"""Looks at the well-formed services from outside, such as whether their folders exist, and returns
what it minds: the service's host, the key, and the reason."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A configuration that can be used, and what `inspect` minds about its services.

    `mistakes` are lines for people, each with its place, in the order of the text.
    """

    config: Config
    mistakes: Mapping[str, tuple[str, ...]]


def parse(text: str, *, source: str) -> Config:
    """Read a configuration, as `read` does, without looking at the world."""
    return read(text, source=source).config


def read(text: str, *, source: str, inspect: Inspect = lambda _: ()) -> Reading:
    """Read a configuration.

    Args:
        text: YAML if `source` ends in .yaml or .yml, else JSON.
        source: the file's name, for messages.
        inspect: what else to ask about the well-formed services; nothing by default.
    Raises:
        ConfigError: with all problems and mistakes, in the order of the text.
    """

    def lines(found: Iterable[_Remark]) -> list[str]:
        return [f"{source}:{at.line}:{at.column}: {words}" for at, words in sorted(found)]

    try:
        reader = _Reader(source_text.read(text, yaml=source.endswith((".yaml", ".yml"))), inspect)
        config = reader.config()
    except source_text.NotADocument as error:
        raise ConfigError(lines([(error.at, error.reason)])) from None
    if reader.problems:
        raise ConfigError(lines(reader.problems.union(*reader.mistakes.values())))
    return Reading(config, {host: (*lines(each),) for host, each in reader.mistakes.items()})


_Remark: TypeAlias = tuple[Position, str]

_Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the root of the file, as pydantic gives them."""

_M = TypeVar("_M", bound=BaseModel)

_STAND_INS: dict[type[BaseModel], dict[str, Any]] = {
    File: {"services": {}},
    ServiceConfig: {"name": "-", "proxyPort": 1},
}
"""What takes the place of required values that could not be read, to look at the others."""


class _Reader:
    """Goes through a document once and collects everything that is wrong with it."""

    def __init__(self, root: Node, inspect: Inspect) -> None:
        self.problems: set[_Remark] = set()
        self.mistakes: dict[str, set[_Remark]] = {}
        self._root = root
        self._inspect = inspect
        self._sound: dict[str, tuple[str, ServiceConfig]] = {}
        self._owners: dict[Hashable, str] = {}
        self._projects: dict[Path, list[tuple[str, frozenset[str]]]] = {}

    def config(self) -> Config:
        """Return the configuration; where there are problems, it is worth nothing."""
        for at, path, first in source_text.doubled(self._root):
            self._report(at, path, f"stands in line {first.line} already; remove one")
        written = source_text.plain(self._root)
        top = _dict(written)
        given, defaults = top.get("services"), top.get("defaults")
        if isinstance(given, dict):
            top["services"] = {}
        if isinstance(defaults, dict):
            top["defaults"] = {**_STAND_INS[ServiceConfig], **defaults}
        file, _ = self._validate(File, written, ())
        listen = values.listen(file.listen)
        if isinstance(listen, tuple):
            self._claim(_port(*listen), "the proxy itself (`listen`)")
            if file.listen_group is not None:
                reason = 'means something only with "listen": "unix:/path"; remove it'
                self._tell(("listenGroup",), reason)
        services = {}
        for key, one in _dict(given).items():
            host = self._host(key)
            services[host or key] = self._service(one, key, host, _dict(defaults))
        self._look_from_outside()
        settings = {key: value for key, value in file if key in Config.model_fields}
        return Config.model_construct(**{**settings, "services": services})

    def _host(self, key: str) -> str | None:
        try:
            return values.host(key)
        except ValueError as error:
            self._tell(("services", key), str(error))
            return None

    def _service(
        self, written: object, key: str, host: str | None, defaults: dict[str, Any]
    ) -> ServiceConfig:
        path = ("services", key)
        before = len(self.problems)
        own = _dict(written)
        if isinstance(written, dict):
            written = {"name": key if host else "-", **_layered(defaults, own)}
            for name, reason in _contradictions(written, own):
                self._tell((*path, name), reason)
        service, bad = self._validate(ServiceConfig, written, path)
        for name, reason in self._conflicts(service, bad, host, _spell(path)):
            self._tell((*path, name) if name else path, reason)
        if host and not bad and len(self.problems) == before:
            self._sound[host] = key, service
        return service

    def _look_from_outside(self) -> None:
        found = self._inspect({host: service for host, (_, service) in self._sound.items()})
        for host, name, reason in found:
            written, _ = self._sound[host]
            remark = self._at(("services", written, name), reason)
            self.mistakes.setdefault(host, set()).add(remark)

    def _conflicts(
        self, service: ServiceConfig, bad: Set[str], host: str | None, me: str
    ) -> Iterator[tuple[str, str]]:
        """Claim what only one service may have; yield what another has already."""
        for name in (host, *service.aliases):
            if name and (owner := self._claim(name, me)):
                key = "" if name is host else "aliases"
                yield key, f"{name} stands at {owner} already; a host belongs to one service"
        if not bad & {"proxyPort", "proxyHost"}:
            port = service.proxy_port
            if owner := self._claim(_port(service.proxy_host, port), me):
                cure = "give it another one, or list further hosts of one service as `aliases`"
                yield "proxyPort", f"port {port} is used by {owner}; {cure}"
        if (folder := service.compose_dir) and "containers" not in bad:
            parts = frozenset(service.containers or ())
            for owner, others in self._projects.setdefault(folder, []):
                if not parts or not others or parts & others:
                    cure = "name different `containers` at both, or one stops what the other uses"
                    yield "composeDir", f"{owner} has containers of the same project; {cure}"
            self._projects[folder].append((me, parts))

    def _claim(self, thing: Hashable, me: str) -> str | None:
        """Return who has the thing already; if nobody, it is taken now."""
        owner = self._owners.get(thing)
        self._owners.setdefault(thing, me)
        return owner

    def _validate(self, model: type[_M], written: object, path: _Path) -> tuple[_M, set[str]]:
        """Return a model without the keys that could not be read, and these keys."""
        try:
            return model.model_validate(written, by_alias=True, by_name=False), set()
        except ValidationError as error:
            bad = set()
            for each in error.errors(include_url=False, include_input=False):
                bad |= {str(part) for part in each["loc"][:1]} or {*_keys(model)}
                self._explain(model, each, path)
        good = {key: value for key, value in _dict(written).items() if key not in bad}
        return model.model_validate({**_STAND_INS[model], **good}), bad

    def _explain(self, model: type[BaseModel], error: ErrorDetails, path: _Path) -> None:
        """Report one of pydantic's errors where the value stands: here or in `defaults`."""
        loc = error["loc"]
        owner, field = _look_up(model, loc)
        reason = _reason(error, owner)
        if field and field.examples and ";" not in reason:
            reason += f"; for example {' or '.join(map(json.dumps, field.examples))}"
        is_key = loc[-1:] == ("[key]",)
        there = (*path, *(loc[:-1] if is_key else loc))
        found = source_text.find(self._root, there)
        if path and error["type"] != "missing":
            shared = source_text.find(self._root, ("defaults", *there[2:]))
            if shared.depth - 1 > max(found.depth - 2, 0):
                there, found = ("defaults", *there[2:]), shared
        # What a value is wrapped in, such as a list of one, is not in the file.
        shown = tuple(p for i, p in enumerate(there) if i < found.depth or isinstance(p, str))
        at_key = is_key or error["type"] in ("missing", "extra_forbidden")
        self._report(found.key if at_key else found.value, shown, reason)

    def _tell(self, path: _Path, reason: str) -> None:
        """Report something about a key, or about what it should stand in."""
        self.problems.add(self._at(path, reason))

    def _at(self, path: _Path, reason: str) -> _Remark:
        return _remark(source_text.find(self._root, path).key, path, reason)

    def _report(self, at: Position, path: _Path, reason: str) -> None:
        self.problems.add(_remark(at, path, reason))


def _remark(at: Position, path: _Path, reason: str) -> _Remark:
    return at, f"{_spell(_discreet(path))}: {reason}" if path else reason


def _discreet(path: _Path) -> _Path:
    """Leave out what is no name of a variable: it may hold what belongs into the value."""
    for at, (before, part) in enumerate(pairwise(path), 1):
        if before == "env" and isinstance(part, str) and not part.isidentifier():
            return path[:at]
    return path


def _dict(written: object) -> dict[str, Any]:
    return written if isinstance(written, dict) else {}


def _spell(path: _Path) -> str:
    """Return a path as people write it."""
    spelt = ""
    for part in path:
        if isinstance(part, int):
            spelt += f": item {part + 1}"
        elif not part.isidentifier():
            spelt += f"[{json.dumps(part)}]"
        else:
            spelt += f".{part}" if spelt else part
    return spelt


def _layered(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Put a service's own values over the defaults; those of `health` and `env` key by key.

    What the service is made of is one decision: with a `command` of its own, the defaults'
    `composeDir` and what belongs to it do not count, and the other way round.
    """
    made_of = next((kind for kind in MADE_OF if own.get(kind) is not None), None)
    for kind, meant_with_it in MADE_OF.items():
        if made_of not in (None, kind):
            shared = {k: v for k, v in shared.items() if k not in {kind, *meant_with_it}}
    merged = {**shared, **own}
    for key in ("health", "env"):
        if isinstance(shared.get(key), dict) and isinstance(own.get(key), dict):
            merged[key] = {**shared[key], **own[key]}
    return merged


def _contradictions(
    written: Mapping[str, Any], own: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield the keys of a service that do not go together."""
    kinds = {kind for kind in MADE_OF if written.get(kind) is not None}
    if not kinds:
        # A misspelt one is told as such, and that is enough.
        if not any(_meant(key, MADE_OF) for key in written if key not in _keys(ServiceConfig)):
            yield "composeDir", "missing; a service has either composeDir or command"
    elif len(kinds) == len(MADE_OF):
        yield "command", "a service has either composeDir or command; remove one of them"
    else:
        for kind in MADE_OF.keys() - kinds:
            for name in sorted(MADE_OF[kind]):
                if own.get(name):
                    yield name, f"means something only with {kind}; remove it"


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields by their names in the file."""
    return {str(field.alias): field for field in model.model_fields.values()}


def _look_up(model: type[BaseModel], loc: _Path) -> tuple[type[BaseModel], FieldInfo | None]:
    """Return the last model on the way to a value, and the field that leads on from there."""
    field = None
    for part in loc:
        inner = field.annotation if field else model
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            break
        model, field = inner, _keys(inner).get(str(part))
    return model, field


_MISSING = {
    "services": 'missing; write at least "services": {}',
    "proxyPort": "missing; write the port on which the service listens",
}


def _reason(error: ErrorDetails, owner: type[BaseModel]) -> str:
    """Return one of pydantic's errors in our words."""
    key = str(error["loc"][-1]) if error["loc"] else ""
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing":
            return _MISSING[key]
        case "extra_forbidden":
            return f"unknown key; {_near(key, _keys(owner))}"
        case "model_type" | "dict_type":
            return "expected an object with keys and values"
        case "tuple_type":
            return "expected a list"
        case "string_type":
            return "expected a string"
        case "literal_error":
            choices: str = error["ctx"]["expected"]
            return f"expected {choices}".replace("'", '"')
        case _:  # `values.Expected`
            return error["msg"]


def _near(key: str, known: Iterable[str]) -> str:
    """Return what may have been meant by an unknown key."""
    if key in _keys(ServiceConfig):
        return "it belongs to a service, or to `defaults`"
    if key in _keys(File):
        return "it belongs to the top level of the file"
    if meant := _meant(key, known):
        return f"did you mean {meant}?"
    return f"known here: {', '.join(sorted(known))}"


def _meant(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that an unknown one resembles, if there is one."""
    from difflib import get_close_matches  # only mistakes need it

    spelt = {name.lower(): name for name in known}
    near = get_close_matches(key.replace("_", "").lower(), spelt, n=1)
    return spelt[near[0]] if near else None


_LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"})  # noqa: S104


def _port(host: str, port: int) -> tuple[str, int]:
    """Return what two listeners cannot share."""
    return ("localhost" if host in _LOCAL_HOSTS else host, port)
