"""How values are written in the configuration: durations, sizes, hosts, addresses, paths.

The types at the end are for pydantic's models. They read a value as it stands in the file into what
the program wants, and take what has been read as it is; their JSON Schema tells editors the same.
The functions behind them raise ValueError with the reason. None looks at the file system or the
network, and none repeats a value that may be secret.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    StrictBool,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from autostart_proxy.errors import BadHost
from autostart_proxy.wire import hosts

LONGEST_SECONDS = 365 * 86400
LONGEST_SOCKET_PATH = 107
"""Bytes; unix(7) has room for 108 with the closing NUL."""


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
_AROUND_AN_AUTHORITY = re.compile(r"^([a-z][a-z0-9+.-]*:)?//|[/?#].*$", re.I | re.S)
_CONTAINER = "^[a-zA-Z0-9._][a-zA-Z0-9._-]*$"
_PROFILE = "^([*]|[a-zA-Z0-9][a-zA-Z0-9_.-]*)$"
_GROUP = "^[a-zA-Z_][a-zA-Z0-9_.-]*$"
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


def status_range(value: object) -> tuple[int, int]:
    """Read a status (`200`) or a range of statuses (`"200-399"`), both ends included."""
    text = str(value) if isinstance(value, int | str) else ""
    if isinstance(value, tuple):
        text = "-".join(map(str, value))
    if re.fullmatch(_STATUSES, text):
        low, _, high = text.partition("-")
        if int(low) <= int(high or low):
            return int(low), int(high or low)
    raise ValueError("expected a status, a range of statuses, or a list of both")


def absolute_path(value: object) -> Path:
    """Read an absolute path; nothing in it is expanded."""
    value = str(value) if isinstance(value, Path) else value
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
    authority = _AROUND_AN_AUTHORITY.sub("", value.strip())
    try:
        name = hosts.canonical_host(authority)
    except BadHost:
        raise ValueError(f"this is not a host name{_with_a_labels(authority)}") from None
    if authority != value or re.search(r":[0-9]*$", authority.rpartition("]")[2]):
        raise ValueError(f"a host stands here, without scheme, port or path; write {name}")
    return name


def _with_a_labels(name: str) -> str:
    try:
        labels = name.encode("idna").decode()
        return "" if name.isascii() else f"; write {hosts.canonical_host(labels)}"
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
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = value if isinstance(value, str) else ""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"expected an IP address or a network: {error}") from None


def line(value: str) -> str:
    """Refuse text with line ends and other control characters."""
    if not value.isprintable():
        raise ValueError("not printable")
    return value


def listed(value: object) -> object:
    """Put what stands alone into a list."""
    return value if isinstance(value, list | tuple) else [value]


def filled(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse an empty list; pydantic's own check would not count items that are refused too."""
    if not value:
        raise ValueError("expected a list that is not empty")
    return value


class Expected:
    """Say in one sentence what a value has to be, whatever is wrong with it."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source),
            custom_error_type="expected",
            custom_error_message=f"expected {self._what}",
        )


def _schema(types: list[str], **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": types, **more})


Seconds = Annotated[
    float, BeforeValidator(seconds), _schema(["number", "string"], minimum=0, pattern=_DURATION)
]
PositiveSeconds = Annotated[
    float,
    BeforeValidator(positive_seconds),
    _schema(["number", "string"], exclusiveMinimum=0, pattern=_DURATION),
]
Size = Annotated[
    int, BeforeValidator(size), _schema(["integer", "string"], minimum=0, pattern=_SIZE)
]
_STATUS = {"type": ["integer", "string"], "minimum": 100, "maximum": 599, "pattern": _STATUSES}
Statuses = Annotated[
    tuple[Annotated[tuple[int, int], BeforeValidator(status_range)], ...],
    AfterValidator(filled),
    BeforeValidator(listed),
    WithJsonSchema({"anyOf": [_STATUS, {"type": "array", "minItems": 1, "items": _STATUS}]}),
]
_ABSOLUTE = WithJsonSchema({"type": "string", "pattern": "^/"})
AbsolutePath = Annotated[Path, BeforeValidator(absolute_path), _ABSOLUTE]
SocketPath = Annotated[Path, BeforeValidator(socket_path), _ABSOLUTE]
Host = Annotated[str, BeforeValidator(host)]
Address = Annotated[str, BeforeValidator(address)]
Listen = Annotated[str, BeforeValidator(listen_text)]
Network = Annotated[
    IPv4Network | IPv6Network, PlainValidator(network), WithJsonSchema({"type": "string"})
]
Line = Annotated[str, Field(min_length=1), AfterValidator(line), Expected("a line of text")]
# RFC 9112, section 3.2.1: origin form, with the query.
RequestPath = Annotated[
    str,
    Field(pattern=_REQUEST_PATH),
    Expected("a path that begins with / and has no space; encode others with %"),
]
# One that looks like an option is none.
Container = Annotated[
    str, Field(pattern=_CONTAINER), Expected("the name of a service in the Compose file")
]
# What a program can be given as argument or in its environment.
Argument = Annotated[str, Field(pattern=r"^[^\x00]*$"), Expected("a string; put numbers in quotes")]
_FILLED = Field(json_schema_extra={"minItems": 1})
Profiles = tuple[
    Annotated[str, Field(pattern=_PROFILE), Expected("the name of a profile in the Compose file")],
    ...,
]
Containers = Annotated[tuple[Container, ...], AfterValidator(filled), _FILLED]
Command = Annotated[tuple[Argument, ...], AfterValidator(filled), _FILLED]
Variable = Annotated[
    str, Field(pattern=_VARIABLE), Expected("a name of letters, digits and _, not a digit first")
]
Group = Annotated[str, Field(pattern=_GROUP), Expected("the name of a group")]
Port = Annotated[
    int, Field(strict=True, ge=1, le=65535), Expected("a whole number from 1 to 65535")
]
Count = Annotated[int, Field(strict=True, ge=1), Expected("a whole number of at least 1")]
Blocking = Annotated[StrictBool | Literal["auto"], Expected('true, false or "auto"')]
