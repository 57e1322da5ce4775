"""A container as the engine describes it. Pure.

Only fields that have not changed since API 1.41 (Engine 20.10) are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABEL = "com.docker.compose."


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a Compose project as the engine sees it now.

    Attributes:
        status: created, running, paused, restarting, removing, exited or dead.
        exit_code: of the last run; 0 before the first.
        health: starting, healthy or unhealthy; None without a healthcheck.
        restarts: how often its restart policy has restarted it since somebody started it.
        image: what its image is called.
        ports: the host's TCP ports that it publishes.
        tty: whether its output is raw.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    status: str
    exit_code: int
    out_of_memory: bool
    health: str | None
    restarts: int
    image: str
    ports: frozenset[int]
    tty: bool

    @property
    def project(self) -> str:
        """Its Compose project."""
        return self.labels.get(LABEL + "project", "")

    @property
    def service(self) -> str:
        """Its service in the Compose file."""
        return self.labels.get(LABEL + "service", "")

    @property
    def config_hash(self) -> str:
        """Compose's fingerprint of the service it was created from."""
        return self.labels.get(LABEL + "config-hash", "")

    @property
    def image_id(self) -> str:
        """The image it was created from."""
        return self.labels.get(LABEL + "image", "")

    @property
    def depends_on(self) -> str:
        """Its service's dependencies when it was created: `name:condition:restart,...`."""
        return self.labels.get(LABEL + "depends_on", "")

    @property
    def config_files(self) -> list[Path]:
        """The Compose files that it was created from."""
        named = self.labels.get(LABEL + "project.config_files", "")
        return [Path(each) for each in named.split(",") if each]


def read_container(seen: dict[str, Any]) -> Container:
    state, config = seen["State"], seen["Config"]
    bindings: dict[str, Any] = seen["HostConfig"].get("PortBindings") or {}
    return Container(
        id=seen["Id"],
        name=seen["Name"].removeprefix("/"),
        labels=config.get("Labels") or {},
        status=state["Status"],
        exit_code=state["ExitCode"],
        out_of_memory=state["OOMKilled"],
        health=_health(state.get("Health")),
        restarts=seen.get("RestartCount", 0),
        image=config["Image"],
        ports=frozenset(
            int(binding["HostPort"])
            for inside, bound in bindings.items()
            if inside.endswith("/tcp")
            for binding in bound or []
            if binding.get("HostPort", "").isdecimal()
        ),
        tty=bool(config.get("Tty")),
    )


def _health(seen: dict[str, Any] | None) -> str | None:
    """Docker says "none" where a Compose file has disabled an image's healthcheck."""
    status = (seen or {}).get("Status")
    return None if status in (None, "", "none") else str(status)
