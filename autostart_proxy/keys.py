"""The keys of the configuration file: meaning, form, default, and the values as the program has
them.

The dataclasses are the one place that names the keys: reading, defaults and the JSON Schema come
from them. They are plain because the proxy stays resident on small servers: pydantic with one
small model takes 12 MB more, and 125 ms at every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from autostart_proxy import notation
from autostart_proxy.notation import Form


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the file: how its value is written, what it means, and examples.

    `form` is None for an object with keys of its own. `default` is how the default is written
    where that is not how the program holds it.
    """

    form: Form | None
    meaning: str
    examples: tuple[Any, ...] = ()
    default: Any = None


DEFAULT_HOST = "127.0.0.1"
DEFAULT_LISTEN = "127.0.0.1:8890"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """When a started service counts as ready."""

    path: Annotated[
        str | None,
        Key(
            notation.nullable(notation.REQUEST_PATH),
            "The path that is asked until it answers. null: what Docker says of the container's"
            " own healthcheck where it has one, else /.",
            ("/health",),
        ),
    ] = None
    status: Annotated[
        tuple[tuple[int, int], ...],
        Key(notation.STATUSES, "The statuses that mean ready.", ("200-399", [200, 401]), "100-499"),
    ] = ((100, 499),)

    def accepts(self, status: int) -> bool:
        """Say whether an answer with this status means ready."""
        return any(low <= status <= high for low, high in self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """One service: a Compose project or a plain command, and the port where it listens.

    Timeouts are in seconds.
    """

    name: Annotated[str, Key(notation.TEXT, "For people. Default: the host.", ("Whisper API",))]
    aliases: Annotated[
        tuple[str, ...],
        Key(
            notation.list_of(notation.HOST),
            "Further host names of the service.",
            (["stt.example.org"],),
        ),
    ] = ()
    compose_dir: Annotated[
        Path | None,
        Key(
            notation.nullable(notation.ABSOLUTE_PATH),
            "Folder of the Compose file; instead of command.",
            ("/opt/whisper-faster",),
        ),
    ] = None
    containers: Annotated[
        tuple[str, ...] | None,
        Key(
            notation.nullable(notation.list_of(notation.CONTAINER, at_least=1)),
            "The Compose services that must run; others of the project start only as their"
            " dependencies. null: all of the project.",
            (["faster-whisper"],),
        ),
    ] = None
    command: Annotated[
        tuple[str, ...] | None,
        Key(
            notation.nullable(notation.list_of(notation.ARGUMENT, at_least=1)),
            "A program and its arguments, run without a shell; instead of composeDir.",
            (["/opt/app/.venv/bin/uvicorn", "app:app", "--port", "8001"],),
        ),
    ] = None
    cwd: Annotated[
        Path | None,
        Key(notation.nullable(notation.ABSOLUTE_PATH), "Folder where command runs.", ("/opt/app",)),
    ] = None
    env: Annotated[
        Mapping[str, str],
        Key(
            notation.VARIABLES,
            "Environment variables for command, beside the proxy's own.",
            ({"LOG_LEVEL": "info"},),
        ),
    ] = field(default_factory=dict)
    proxy_port: Annotated[
        int, Key(notation.whole(1, 65535), "The port on which the service listens.", (8001,))
    ]
    proxy_host: Annotated[
        str, Key(notation.ADDRESS, "The host on which the service listens.", (DEFAULT_HOST,))
    ] = DEFAULT_HOST
    blocking: Annotated[
        bool | Literal["auto"],
        Key(
            notation.one_of(True, False, "auto"),
            "While the service wakes: true holds the request; false answers at once, browsers with"
            " a waiting page and others with 503; auto shows the page to navigating browsers and"
            " holds the rest.",
        ),
    ] = True
    start_timeout: Annotated[
        float,
        Key(
            notation.POSITIVE_SECONDS,
            "From container start to ready, and how long a request is held.",
            ("30s",),
        ),
    ] = 30.0
    prepare_timeout: Annotated[
        float,
        Key(
            notation.POSITIVE_SECONDS,
            "For an image pull or build before the first start.",
            ("15m",),
        ),
    ] = 900.0
    idle_timeout: Annotated[
        float | None,
        Key(
            notation.nullable(notation.SECONDS),
            "From the end of the last request to sleep; null: never sleep.",
            ("15m", None),
        ),
    ] = 900.0
    stop_timeout: Annotated[float, Key(notation.SECONDS, "From SIGTERM to SIGKILL.", ("10s",))] = (
        10.0
    )
    drain_timeout: Annotated[
        float,
        Key(
            notation.SECONDS,
            "For open requests when an operator puts the service to sleep.",
            ("30s",),
        ),
    ] = 30.0
    health: Annotated[HealthConfig, Key(None, "When a started service is ready.")] = field(
        default_factory=HealthConfig
    )
    max_body: Annotated[
        int | None,
        Key(
            notation.nullable(notation.SIZE),
            "Largest request body; larger ones get 413. null: no limit.",
            ("500MB", None),
        ),
    ] = None
    max_held: Annotated[
        int, Key(notation.whole(1), "Requests held at once; further ones get 503.", (1000,))
    ] = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged, and in which form; always to standard error."""

    format: Annotated[
        Literal["text", "json"],
        Key(notation.one_of("text", "json"), "Lines for people, or one JSON object each."),
    ] = "text"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Key(
            notation.one_of("debug", "info", "warning", "error"),
            "The least severe entries that are written.",
        ),
    ] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; `services` by canonical host.

    `control_socket` is None for the default place, which depends on who runs the proxy.
    """

    services: Annotated[Mapping[str, ServiceConfig], Key(None, "The services by host name.")]
    listen: Annotated[
        str,
        Key(
            notation.LISTEN,
            "Where the proxy listens.",
            (DEFAULT_LISTEN, "unix:/run/autostart-proxy/http.sock"),
        ),
    ] = DEFAULT_LISTEN
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        Key(
            notation.list_of(notation.NETWORK),
            "Addresses whose X-Forwarded-* headers are kept.",
            (["127.0.0.1", "::1"],),
            ["127.0.0.1", "::1"],
        ),
    ] = (IPv4Network("127.0.0.1"), IPv6Network("::1"))
    control_socket: Annotated[
        Path | None,
        Key(
            notation.nullable(notation.SOCKET_PATH),
            "The unix socket for status, wake and sleep. null: control.sock in"
            " /run/autostart-proxy for root and under systemd, else in the user's runtime folder.",
            ("/run/autostart-proxy/control.sock",),
        ),
    ] = None
    log: Annotated[LogConfig, Key(None, "What is logged.")] = field(default_factory=LogConfig)
    shutdown_timeout: Annotated[
        float,
        Key(notation.SECONDS, "For requests in flight when the proxy is told to stop.", ("30s",)),
    ] = 30.0


class Row(NamedTuple):
    """A key beside its place in a dataclass: the field's name, and its type if it has keys too."""

    name: str
    struct: Any
    key: Key


@cache
def rows(struct: Any) -> dict[str, Row]:
    """Return the keys of a dataclass by their names in the file."""
    hints = get_type_hints(struct, include_extras=True)
    found = {}
    for each in fields(struct):
        kind, key = get_args(hints[each.name])
        found[camel(each.name)] = Row(each.name, kind if is_dataclass(kind) else None, key)
    return found


def camel(name: str) -> str:
    """Return a field's name as it is written in the file."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file.

    It says what an editor can check in passing; `parse` stays the judge.
    """
    service = {"$ref": "#/$defs/service"}
    top = _schema_of(Config)
    top["properties"] |= {
        "$schema": {"type": "string", "description": "Where editors find this schema."},
        "defaults": {**service, "description": "Values for all services that have none."},
        "services": {
            "type": "object",
            "description": top["properties"]["services"]["description"],
            "additionalProperties": service,
        },
        "log": {**top["properties"]["log"], **_schema_of(LogConfig)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "autostart-proxy",
        **top,
        "required": ["services"],
        "$defs": {"service": _schema_of(ServiceConfig)},
    }


def _schema_of(struct: Any) -> dict[str, Any]:
    defaults = {each.name: each.default for each in fields(struct)}
    properties = {}
    for key, row in rows(struct).items():
        inner = _schema_of(row.struct) if row.struct else {}
        default = row.key.default or defaults[row.name]
        default = list(default) if isinstance(default, tuple) else default
        properties[key] = {
            "description": row.key.meaning,
            **(row.key.form.schema if row.key.form else inner),
            **({} if default is MISSING else {"default": default}),
            **({"examples": list(row.key.examples)} if row.key.examples else {}),
        }
    return {
        "type": "object",
        "description": struct.__doc__.partition("\n")[0],
        "properties": properties,
        "additionalProperties": False,
    }
