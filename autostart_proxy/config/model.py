"""The configuration's keys: their names, types, defaults and meanings. Pure.

The models are the one place that names the keys: reading, defaults and the JSON Schema come from
them. A value that is in a `Config` has been checked; nobody checks it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema

from autostart_proxy.config import values
from autostart_proxy.config.units import CommandUnit, ComposeUnit, Unit


class _Keys(BaseModel, frozen=True):
    """Camel case in the file, snake case in code; unknown keys are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        hide_input_in_errors=True,
    )


class HealthConfig(_Keys, frozen=True):
    """When a started service counts as ready."""

    path: values.RequestPath | None = Field(
        default=None,
        description="The path that is asked until it answers. null: what Docker says of the"
        " container's own healthcheck where it has one, else /.",
        examples=["/health"],
    )
    status: values.Statuses = Field(
        default=((100, 499),),
        description="The statuses that mean ready.",
        examples=["200-399", [200, 401]],
        json_schema_extra={"default": "100-499"},
    )

    def accepts(self, status: int) -> bool:
        """Say whether an answer with this status means ready."""
        return any(low <= status <= high for low, high in self.status)


def _demand_nothing(of_service: dict[str, Any]) -> None:
    """Let `defaults` give what a service must have."""
    del of_service["required"]


class ServiceConfig(_Keys, frozen=True, json_schema_extra=_demand_nothing):
    """One service: a Compose project or a plain command, and the port where it listens."""

    # Timeouts are in seconds. Which of the keys of a unit go together, `MADE_OF` says.
    name: values.Line = Field(
        description="For people. Default: the host.", examples=["Whisper API"]
    )
    aliases: tuple[values.Host, ...] = Field(
        default=(),
        description="Further host names of the service.",
        examples=[["stt.example.org"]],
    )
    compose_dir: values.AbsolutePath | None = Field(
        default=None,
        description="Folder of the Compose file; instead of command.",
        examples=["/opt/whisper-faster"],
    )
    containers: values.Containers | None = Field(
        default=None,
        description="The Compose services that must run; others of the project start only as their"
        " dependencies. null: all of the project.",
        examples=[["faster-whisper"]],
    )
    profiles: values.Profiles = Field(
        default=(),
        description="The profiles of the Compose file that are active. Empty: what COMPOSE_PROFILES"
        " says, in the proxy's environment or in the folder's .env.",
        examples=[["gpu"]],
    )
    command: values.Command | None = Field(
        default=None,
        description="A program and its arguments, run without a shell; instead of composeDir.",
        examples=[["/opt/app/.venv/bin/uvicorn", "app:app", "--port", "8001"]],
    )
    cwd: values.AbsolutePath | None = Field(
        default=None, description="Folder where command runs.", examples=["/opt/app"]
    )
    env: Mapping[values.Variable, values.Argument] = Field(
        default={},
        description="Environment variables for command, beside PATH, HOME, USER, LOGNAME, SHELL,"
        " TMPDIR, TZ, LANG, LANGUAGE and LC_* of the proxy.",
        examples=[{"LOG_LEVEL": "info"}],
        repr=False,  # tokens and passwords
        # pydantic lets other names through here, unlike when it reads.
        json_schema_extra={"additionalProperties": False},
    )
    proxy_port: values.Port = Field(
        description="The port on which the service listens.", examples=[8001]
    )
    proxy_host: values.Address = Field(
        default="127.0.0.1",
        description="The host on which the service listens.",
        examples=["127.0.0.1"],
    )
    blocking: values.Blocking = Field(
        default=True,
        description="While the service wakes: true holds the request; false answers at once,"
        " browsers with a waiting page and others with 503; auto shows the page to navigating"
        " browsers and holds the rest.",
    )
    start_timeout: values.PositiveSeconds = Field(
        default=30.0,
        description="From container start to ready, and how long a request is held.",
        examples=["30s"],
    )
    prepare_timeout: values.PositiveSeconds = Field(
        default=900.0,
        description="For an image pull or build before the first start.",
        examples=["15m"],
    )
    idle_timeout: values.Seconds | None = Field(
        default=900.0,
        description="From the end of the last request to sleep; null: never sleep.",
        examples=["15m", None],
    )
    stop_timeout: values.Seconds | None = Field(
        default=None,
        description="From SIGTERM to SIGKILL. null: what each container says of itself"
        " (stop_grace_period), else 10s.",
        examples=["1m", None],
    )
    drain_timeout: values.Seconds = Field(
        default=30.0,
        description="For open requests when an operator puts the service to sleep.",
        examples=["30s"],
    )
    response_timeout: values.PositiveSeconds | None = Field(
        default=None,
        description="From the end of a request to the first byte of its response; later ones get"
        " 504. null: no limit.",
        examples=["5m", None],
    )
    body_timeout: values.PositiveSeconds | None = Field(
        default=30.0,
        description="How long the body of a request may be behind 100 bytes per second, its lowest"
        " rate; slower ones get 408. null: no limit.",
        examples=["30s", None],
    )
    health: HealthConfig = Field(
        default_factory=HealthConfig, description="When a started service is ready."
    )
    max_body: values.Size | None = Field(
        default=None,
        description="Largest request body; larger ones get 413. null: no limit.",
        examples=["500MB", None],
    )
    max_held: values.Count = Field(
        default=1000,
        description="Requests held at once; further ones get 503.",
        examples=[1000],
    )

    @property
    def unit(self) -> Unit:
        """What the service is made of."""
        where = self.proxy_host, self.proxy_port
        if self.compose_dir is not None:
            return ComposeUnit(self.compose_dir, self.containers, *where, self.profiles)
        return CommandUnit(self.command or (), self.cwd, self.env, *where)


MADE_OF = {"composeDir": {"containers", "profiles"}, "command": {"cwd", "env"}}
"""The key that decides which unit a service is, and the keys that mean something only with it."""


class LogConfig(_Keys, frozen=True):
    """What is logged, and in which form; always to standard error."""

    format: Literal["text", "json"] = Field(
        default="text", description="Lines for people, or one JSON object each."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe entries that are written."
    )


class Config(_Keys, frozen=True):
    """The whole configuration; `services` by canonical host."""

    services: Mapping[str, ServiceConfig] = Field(description="The services by host name.")
    listen: values.Listen = Field(
        default="127.0.0.1:8890",
        description="Where the proxy listens.",
        examples=["127.0.0.1:8890", "unix:/run/autostart-proxy/http.sock"],
    )
    listen_group: values.Group | None = Field(
        default=None,
        description="Who may connect to the unix socket of listen: the members of this group, of"
        " which the proxy's user must be one. null: the group of the proxy.",
        examples=["autostart-http"],
    )
    trusted_proxies: tuple[values.Network, ...] = Field(
        default=(IPv4Network("127.0.0.1"), IPv6Network("::1")),
        description="Addresses whose X-Forwarded-For, -Host, -Port and -Proto are believed.",
        examples=[["127.0.0.1", "::1"]],
        json_schema_extra={"default": ["127.0.0.1", "::1"]},
    )
    # None stands for the default place, which depends on who runs the proxy.
    control_socket: values.SocketPath | None = Field(
        default=None,
        description="The unix socket for status, wake and sleep. null: control.sock in"
        " /run/autostart-proxy for root and under systemd, else in the user's runtime folder.",
        examples=["/run/autostart-proxy/control.sock"],
    )
    log: LogConfig = Field(default_factory=LogConfig, description="What is logged.")
    shutdown_timeout: values.Seconds = Field(
        default=30.0,
        description="For requests in flight when the proxy is told to stop.",
        examples=["30s"],
    )


class File(Config, frozen=True, title="autostart-proxy"):
    """The configuration file of autostart-proxy."""

    schema_uri: str = Field(
        default="./config.schema.json",
        alias="$schema",
        description="Where editors find this schema.",
    )
    defaults: ServiceConfig = Field(
        default_factory=lambda: ServiceConfig(name="-", proxy_port=1),
        description="Values for all services that have none.",
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file.

    It says what an editor can check in passing; `parse` stays the judge.
    """
    return {"$schema": GenerateJsonSchema.schema_dialect, **File.model_json_schema()}
