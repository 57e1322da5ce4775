"""A container as the engine describes it. Pure.

Only fields that have not changed since API 1.41 (Engine 20.10) are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

LABEL = "com.docker.compose."

RUNNING = frozenset({"running", "paused", "restarting"})
"""The states in which a container has not ended."""

HARMLESS_SIGNALS = {"1": "HUP", "10": "USR1", "12": "USR2"}
"""A `docker kill -s HUP` asks for a reload, not for an end."""

Binding = tuple[str, int]
"""An address of the host, empty for all of them, and a TCP port that is published there."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a Compose project as the engine sees it now.

    Times are seconds of the engine's clock.

    Attributes:
        status: created, running, paused, restarting, removing, exited or dead.
        exit_code: of the last run; 0 before the first.
        health: starting, healthy or unhealthy; None without a healthcheck.
        restarts: how often its restart policy has restarted it since somebody started it.
        image: what its image is called.
        published: where the host's TCP ports lead to it; while it does not run, where they will.
        tty: whether its output is raw.
        created_at: when it was made.
        started_at: when its last run began; 0 before the first.
        grace_seconds: what it asks for itself between its stop signal and SIGKILL; negative: to
            be waited for without end. None: it asks for nothing.
        stop_signal: by what it is asked to end, as its image or Compose file writes it; empty: by
            SIGTERM.
        network_mode: `host`, `container:ID`, or a network's name.
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
    published: frozenset[Binding]
    tty: bool
    created_at: float
    started_at: float
    grace_seconds: float | None
    stop_signal: str
    network_mode: str

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.status in RUNNING

    @property
    def project(self) -> str:
        """Its Compose project."""
        return self.labels.get(LABEL + "project", "")

    @property
    def service(self) -> str:
        """Its service in the Compose file."""
        return self.labels.get(LABEL + "service", "")

    @property
    def number(self) -> str:
        """Which of its service's containers it is."""
        return self.labels.get(LABEL + "container-number", "")

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
    def is_replacement(self) -> bool:
        """Whether it was created to take another container's place."""
        return LABEL + "replace" in self.labels

    @property
    def lender(self) -> str:
        """The container whose network it uses; empty where it has one of its own."""
        return lender_of(self.network_mode)

    def is_ended_by(self, signal: str) -> bool:
        """Whether a signal asks it to end; by its number."""
        name = HARMLESS_SIGNALS.get(signal)
        return name is None or self.stop_signal.removeprefix("SIG") in (name, signal)

    def publishes(self, host: str, port: int) -> bool:
        """Whether this port leads to it."""
        return leads_to(self.published, host, port)


@dataclass(frozen=True, slots=True)
class Listed:
    """What the engine's list tells of a container without looking at it."""

    id: str
    name: str
    labels: Mapping[str, str]
    status: str
    published: frozenset[Binding]

    def __str__(self) -> str:
        """For messages: its name, and where it comes from if a label says so."""
        project, folder = self.labels.get(LABEL + "project"), working_dir(self.labels)
        origin = [f"project {project}"] if project else []
        origin += [f"folder {folder}"] if folder else []
        return f"container {self.name}" + (f" ({', '.join(origin)})" if origin else "")


def lender_of(network_mode: str) -> str:
    """The container whose network is meant; empty where it is not another container's."""
    kind, _, name = network_mode.partition(":")
    return name if kind == "container" else ""


def working_dir(labels: Mapping[str, str]) -> str:
    """The folder of the project that a container was created from; empty if unknown."""
    return labels.get(LABEL + "project.working_dir", "")


def config_files(labels: Mapping[str, str]) -> list[Path]:
    """The Compose files that a container was created from."""
    named = labels.get(LABEL + "project.config_files", "")
    return [Path(each) for each in named.split(",") if each]


def leads_to(published: Collection[Binding], host: str, port: int) -> bool:
    """Whether who connects to a host and a port reaches one of these published ports."""
    return any(at == port and _is_reached(address, host) for address, at in published)


def port_range(written: str) -> range:
    """The ports that `8001` or `8001-8003` means; none where the engine is to choose one."""
    first, _, last = written.partition("-")
    return range(int(first), int(last or first) + 1) if first.isdecimal() else range(0)


def read_container(seen: Mapping[str, Any]) -> Container:
    """Read an answer of `GET /containers/ID/json`."""
    state, config, host = seen["State"], seen["Config"], seen["HostConfig"]
    runs = state["Status"] in RUNNING
    ports = (seen.get("NetworkSettings") or {}).get("Ports") if runs else host.get("PortBindings")
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
        published=frozenset(_bindings(ports or {})),
        tty=bool(config.get("Tty")),
        created_at=_seconds(seen.get("Created")),
        started_at=_seconds(state.get("StartedAt")),
        grace_seconds=config.get("StopTimeout"),
        stop_signal=config.get("StopSignal") or "",
        network_mode=host.get("NetworkMode") or "",
    )


def read_listed(seen: Mapping[str, Any]) -> Listed:
    """Read an entry of `GET /containers/json`."""
    return Listed(
        id=seen["Id"],
        name=next(iter(seen.get("Names") or []), seen["Id"][:12]).removeprefix("/"),
        labels=seen.get("Labels") or {},
        status=seen.get("State", ""),
        published=frozenset(
            (each.get("IP", ""), each["PublicPort"])
            for each in seen.get("Ports") or []
            if each.get("Type") == "tcp" and each.get("PublicPort")
        ),
    )


def _is_reached(address: str, host: str) -> bool:
    """Whether what listens on an address of this machine is reached by a host's name or address.

    Names are not looked up: only of the usual one it is known what it means.
    """
    if address in ("", "0.0.0.0", "::"):  # noqa: S104 - nothing is bound here
        return True
    if host == "localhost":
        return ip_address(address).is_loopback
    try:
        return ip_address(host) == ip_address(address)
    except ValueError:
        return True


def _bindings(ports: Mapping[str, Any]) -> Iterator[Binding]:
    for inside, bound in ports.items():
        if inside.endswith("/tcp"):
            for each in bound or []:
                for port in port_range(each.get("HostPort", "")):
                    yield each.get("HostIp") or "", port


def _seconds(told: str | None) -> float:
    """A moment as the engine writes it; 0 where there is none, which it calls the year 1."""
    return max(0.0, datetime.fromisoformat(told).timestamp()) if told else 0.0


def _health(seen: Mapping[str, Any] | None) -> str | None:
    """Docker says "none" where a Compose file has disabled an image's healthcheck."""
    status = (seen or {}).get("Status")
    return None if status in (None, "", "none") else str(status)
