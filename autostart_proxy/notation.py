"""How values are written in the configuration: durations, sizes, hosts, addresses, paths.

A `Form` reads a value as it stands in the file into what the program wants, or raises ValueError
with the reason; its schema tells editors the same. None looks at the file system or the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from autostart_proxy import routing
from autostart_proxy.errors import BadHost

LONGEST_SECONDS = 365 * 86400
LONGEST_SOCKET_PATH = 107
"""Bytes; unix(7) has room for 108 with the closing NUL."""


class Form(NamedTuple):
    """How a kind of value is written."""

    read: Callable[[Any], Any]
    schema: dict[str, Any]


_NUMBER = r"[0-9]{1,9}(\.[0-9]{1,9})?"
_UNIT_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = "^(?=.)" + "".join(f"({_NUMBER}{unit})?" for unit in _UNIT_SECONDS) + "$"
_UNIT_BYTES = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_SIZE = f"^{_NUMBER} ?({'|'.join(_UNIT_BYTES)})$"
_STATUSES = "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"
_REQUEST_PATH = '^/[!"$-~]*$'
_CONTAINER = "^[a-zA-Z0-9._][a-zA-Z0-9._-]*$"
_VARIABLE = "^[a-zA-Z_][a-zA-Z0-9_]*$"


def seconds(value: object) -> float:
    """Read seconds, or a duration in d, h, m, s and ms, in this order; 0 to a year."""
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        parts = re.findall(r"([0-9.]+)([a-z]+)", value)
        total = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        total = value
    else:
        raise ValueError("expected seconds, or a duration with its unit")
    if not 0 <= total <= LONGEST_SECONDS:
        raise ValueError(f"expected 0 to {LONGEST_SECONDS} seconds, which is a year")
    return float(total)


def positive_seconds(value: object) -> float:
    """Read a duration that is longer than 0."""
    if (total := seconds(value)) > 0:
        return total
    raise ValueError("expected more than 0 seconds")


def size(value: object) -> int:
    """Read bytes, or a size in B, kB, MB, GB (powers of 1000), KiB, MiB or GiB (of 1024)."""
    if isinstance(value, str) and (match := re.fullmatch(_SIZE, value)):
        unit = match[2]
        return int(float(value.removesuffix(unit)) * _UNIT_BYTES[unit])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"expected bytes, or a size in {', '.join(_UNIT_BYTES)}")


def statuses(value: object) -> tuple[tuple[int, int], ...]:
    """Read a status, a range (`"200-399"`), or a list of both, into inclusive ranges."""
    ranges = []
    for one in value if isinstance(value, list) else [value]:
        text = str(one) if isinstance(one, int | str) else ""
        low, _, high = text.partition("-") if re.fullmatch(_STATUSES, text) else ("1", "", "0")
        ranges.append((int(low), int(high or low)))
    if ranges and all(low <= high for low, high in ranges):
        return tuple(ranges)
    raise ValueError("expected a status, a range of statuses, or a list of both")


def request_path(value: object) -> str:
    """Read the path (and query) of a request target in origin form (RFC 9112, section 3.2.1)."""
    if isinstance(value, str) and re.fullmatch(_REQUEST_PATH, value):
        return value
    raise ValueError("expected a path that begins with / and has no space; encode others with %")


def absolute_path(value: object) -> Path:
    """Read an absolute path; nothing in it is expanded."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("expected a path")
    path = PurePosixPath(value)
    if not path.is_absolute():
        hint = "~ and variables are not expanded; " if value[:1] in ("~", "$") else ""
        raise ValueError(f"{hint}expected an absolute path")
    if ".." in path.parts:
        raise ValueError("expected a path without ..")
    return Path(path)


def socket_path(value: object) -> Path:
    """Read the absolute path of a unix socket."""
    path = absolute_path(value)
    if len(str(path).encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a socket has at most {LONGEST_SOCKET_PATH} bytes")
    return path


def host(value: object) -> str:
    """Read a host name as browsers send it in `Host`, without a port; return it canonical."""
    if not isinstance(value, str):
        raise ValueError("expected a host name")
    try:
        name = routing.canonical_host(value)
    except BadHost:
        raise ValueError(f"this is not a host name{_with_a_labels(value)}") from None
    if value.endswith(":") or re.search(r":[0-9]+$", value.rpartition("]")[2]):
        raise ValueError(f"a host stands here without its port; write {name}")
    return name


def _with_a_labels(name: str) -> str:
    try:
        labels = name.encode("idna").decode()
        return "" if name.isascii() else f"; write {routing.canonical_host(labels)}"
    except (UnicodeError, BadHost):
        return ""


def address(value: object) -> str:
    """Read a host to connect to: a name, or an IP address (IPv6 without brackets)."""
    text = value if isinstance(value, str) else ""
    try:
        return str(ip_address(text))
    except ValueError:
        return host(text)


def listen(value: object) -> tuple[str, int] | Path:
    """Read where to listen: `host:port`, `[ipv6]:port` or `unix:/path`; port 0 lets the system
    choose one.

    Returns host (IPv6 without brackets) and port, or the socket's path.
    """
    text = value if isinstance(value, str) else ""
    if text.startswith("unix:"):
        return socket_path(text.removeprefix("unix:"))
    name, _, port = text.rpartition(":")
    bracketed = name.startswith("[") and name.endswith("]")
    if not name or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("expected an address and a port")
    if bracketed != (":" in name):
        raise ValueError("expected an IPv6 address in brackets")
    return address(name[1:-1] if bracketed else name), int(port)


def listen_text(value: object) -> str:
    """Check where to listen, and keep it as it is written."""
    listen(value)
    return str(value)


def network(value: object) -> IPv4Network | IPv6Network:
    """Read an IP address or a network in CIDR notation."""
    text = value if isinstance(value, str) else ""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"expected an IP address or a network: {error}") from None


def argument(value: object) -> str:
    """Read a string that a program can be given as argument or in its environment."""
    if isinstance(value, str) and "\0" not in value:
        return value
    raise ValueError("expected a string; put numbers in quotes")


def text(value: object) -> str:
    """Read a line of text that is not empty."""
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ValueError("expected a line of text")


def container(value: object) -> str:
    """Read the name of a Compose service; one that looks like an option is none."""
    if isinstance(value, str) and re.fullmatch(_CONTAINER, value):
        return value
    raise ValueError("expected the name of a service in the Compose file")


def variables(value: object) -> dict[str, str]:
    """Read environment variables."""
    if not isinstance(value, dict):
        raise ValueError("expected an object of names and strings")
    for name, content in value.items():
        if not re.fullmatch(_VARIABLE, name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        _of_member(name, argument, content)
    return dict(value)


def _of_member(name: object, read: Callable[[Any], Any], value: object) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


# Forms.

TEXT = Form(text, {"type": "string", "minLength": 1})
SECONDS = Form(seconds, {"type": ["number", "string"], "minimum": 0, "pattern": _DURATION})
POSITIVE_SECONDS = Form(
    positive_seconds, {"type": ["number", "string"], "exclusiveMinimum": 0, "pattern": _DURATION}
)
SIZE = Form(size, {"type": ["integer", "string"], "minimum": 0, "pattern": _SIZE})
_STATUS = {"type": ["integer", "string"], "minimum": 100, "maximum": 599, "pattern": _STATUSES}
STATUSES = Form(statuses, {"anyOf": [_STATUS, {"type": "array", "minItems": 1, "items": _STATUS}]})
HOST = Form(host, {"type": "string"})
ADDRESS = Form(address, {"type": "string"})
LISTEN = Form(listen_text, {"type": "string"})
NETWORK = Form(network, {"type": "string"})
REQUEST_PATH = Form(request_path, {"type": "string", "pattern": _REQUEST_PATH})
ABSOLUTE_PATH = Form(absolute_path, {"type": "string", "pattern": "^/"})
SOCKET_PATH = Form(socket_path, {"type": "string", "pattern": "^/"})
ARGUMENT = Form(argument, {"type": "string"})
CONTAINER = Form(container, {"type": "string", "pattern": _CONTAINER})
VARIABLES = Form(
    variables,
    {
        "type": "object",
        "propertyNames": {"pattern": _VARIABLE},
        "additionalProperties": {"type": "string"},
    },
)


def whole(least: int, most: int | None = None) -> Form:
    """Return the form of whole numbers in a range, both ends included."""

    def read(value: object) -> int:
        number = value if isinstance(value, int) and not isinstance(value, bool) else least - 1
        if least <= number and (most is None or number <= most):
            return number
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"expected a whole number {limits}")

    schema = {"type": "integer", "minimum": least}
    return Form(read, schema if most is None else {**schema, "maximum": most})


def one_of(*choices: str | bool) -> Form:
    """Return the form of a choice."""
    spelt = [json.dumps(choice) for choice in choices]

    def read(value: object) -> str | bool:
        for choice in choices:
            if value == choice and type(value) is type(choice):
                return choice
        raise ValueError(f"expected {', '.join(spelt[:-1])} or {spelt[-1]}")

    return Form(read, {"enum": list(choices)})


def nullable(form: Form) -> Form:
    """Return a form that accepts null too, and reads it as None."""
    return Form(
        lambda value: None if value is None else form.read(value),
        {"anyOf": [form.schema, {"type": "null"}]},
    )


def list_of(form: Form, at_least: int = 0) -> Form:
    """Return the form of lists, which are read into tuples."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("expected a list")
        if len(value) < at_least:
            raise ValueError("expected a list that is not empty")
        return tuple(_of_member(f"item {i}", form.read, one) for i, one in enumerate(value, 1))

    schema: dict[str, Any] = {"type": "array", "items": form.schema}
    return Form(read, {**schema, "minItems": at_least} if at_least else schema)
