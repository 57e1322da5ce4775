"""A Compose project's services and what they wait for: pure decisions about what is seen.

- A service is *required* if it must run for its own sake: the configuration names it, or names
  none and no other service depends on it.
- Its dependencies, and theirs, run for its sake. One that ended by itself with 0 has done its
  work (a migration, say), unless somebody waits for its health: then it is a daemon.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from autostart_proxy.backends.compose.snapshot import Snapshot
from autostart_proxy.backends.docker.container import (
    LABEL,
    Binding,
    Container,
    Listed,
    leads_to,
    lender_of,
    port_range,
)

SERVICE_LABEL = LABEL + "service"


class Condition(Enum):
    """What a service waits for before it is started (Compose specification, `depends_on`)."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


@dataclass(frozen=True, slots=True)
class Dependency:
    """One entry of `depends_on`; what is not required may be absent or fail."""

    service: str
    condition: Condition = Condition.STARTED
    required: bool = True


@dataclass(frozen=True, slots=True)
class ComposeService:
    """A service of a Compose file, as Compose itself has read it.

    Attributes:
        container_names: those that its first container may have.
        config_hash: Compose's fingerprint of it; None if unknown.
        replicas: how many containers it has.
        published: the host's TCP ports that lead to it, as far as the file says which.
        lender: the container that is no part of the project and whose network it uses.
        on_host: whether it uses the host's network, where all it listens on is reached.
        has_start_hooks: whether Compose runs commands in it once it has started.
        has_stop_hooks: likewise, before it stops.
        is_filled: whether Compose writes files into its containers, some releases when they are
            created and others before they start.
    """

    name: str
    depends_on: tuple[Dependency, ...] = ()
    container_names: tuple[str, ...] = ()
    config_hash: str | None = None
    replicas: int = 1
    published: frozenset[Binding] = frozenset()
    lender: str = ""
    on_host: bool = False
    has_start_hooks: bool = False
    has_stop_hooks: bool = False
    is_filled: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """A Compose project: what its file says, or what the labels of its containers tell."""

    name: str
    services: Mapping[str, ComposeService]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], hashes: Mapping[str, str]) -> Project:
        """Read the output of `docker compose config --format json` and `--hash '*'`."""
        name = str(config["name"])
        services = {}
        for key, service in (config.get("services") or {}).items():
            replicas = (service.get("deploy") or {}).get("replicas", service.get("scale", 1))
            own_name = service.get("container_name")
            services[key] = ComposeService(
                name=key,
                depends_on=tuple(_dependencies(service.get("depends_on") or {})),
                container_names=(own_name,) if own_name else (f"{name}-{key}-1", f"{name}_{key}_1"),
                config_hash=hashes.get(key),
                replicas=int(replicas),
                published=frozenset(_published(service.get("ports") or [])),
                lender=lender_of(service.get("network_mode") or ""),
                on_host=service.get("network_mode") == "host",
                has_start_hooks=bool(service.get("post_start")),
                has_stop_hooks=bool(service.get("pre_stop")),
                is_filled=_is_filled(service, config),
            )
        return cls(name, services)

    @classmethod
    def from_containers(cls, name: str, containers: Iterable[Container]) -> Project:
        """Read labels, for where the file cannot be read any more."""
        services = {}
        for each in containers:
            wanted = (entry.split(":") for entry in each.depends_on.split(",") if entry)
            depends_on = {key: {"condition": "".join(rest[:1])} for key, *rest in wanted}
            services[each.service] = ComposeService(
                each.service, tuple(_dependencies(depends_on)), (each.name,)
            )
        return cls(name, services)

    def unit(self, names: Collection[str] | None) -> Unit:
        """The required services with all that they depend on; all there are for None.

        What has no replicas belongs to nothing: Compose starts none of it, and waits for none.

        Args:
            names: services or containers.
        Raises:
            KeyError: no service or container of the project has the name it carries.
        """
        named = self.services if names is None else [self.find(name) for name in names]
        required = [name for name in named if self.services[name].replicas]
        if names is None:
            awaited = {to.service for name in required for to in self.services[name].depends_on}
            return Unit(self, frozenset(required) - awaited, self.closure(required))
        return Unit(self, frozenset(required), self.closure(required))

    def find(self, name: str) -> str:
        """The service that has this name, or whose container has it.

        Raises:
            KeyError: there is none.
        """
        if name in self.services:
            return name
        for service in self.services.values():
            if name in service.container_names:
                return service.name
        raise KeyError(name)

    def may_listen(self, host: str, port: int) -> bool:
        """Whether something of it may be reached there, as far as the file says."""
        return any(
            each.on_host or each.lender or leads_to(each.published, host, port)
            for each in self.services.values()
        )

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """These services and all that they depend on, dependencies first."""
        ordered: dict[str, None] = {}

        def add(name: str, above: tuple[str, ...]) -> None:
            if name in ordered or name in above:
                return
            for dependency in self.dependencies(name):
                add(dependency.service, (*above, name))
            ordered[name] = None

        for name in names:
            add(name, ())
        return tuple(ordered)

    def dependencies(self, name: str) -> list[Dependency]:
        """What a service waits for, without what is not there."""
        return [
            each
            for each in self.services[name].depends_on
            if each.service in self.services and self.services[each.service].replicas
        ]


@dataclass(frozen=True, slots=True)
class Unit:
    """The part of a project that one configured service consists of.

    `services` is everything that belongs to it, dependencies first; `required` see above.
    """

    project: Project
    required: frozenset[str]
    services: tuple[str, ...]

    def may_end(self, service: str) -> bool:
        """Whether an end with 0 means that the service has done its work."""
        return service not in self.required and Condition.HEALTHY not in self._awaited(service)

    def is_up(self, service: str, seen: Snapshot) -> bool:
        """Whether nothing has to be done for a service."""
        return not self._is_short(service, seen) and all(
            (each.status == "running" and seen.is_connected(each))
            or self._has_done_its_work(each, seen)
            for each in seen.of(service)
        )

    def all_up(self, seen: Snapshot) -> bool:
        """Whether everything is up that the unit cannot do without."""
        return all(self.is_up(each, seen) or self._is_optional(each) for each in self.services)

    def runs(self, seen: Snapshot) -> bool:
        """Whether something of the unit runs."""
        return any(each.runs for service in self.services for each in seen.of(service))

    def to_start(self, seen: Snapshot) -> list[str]:
        """The services that have to be started, dependencies first.

        As `docker compose up` does, one-shot dependencies of what is started run again.
        """
        wanted: set[str] = set()
        for service in reversed(self.services):  # dependents before what they depend on
            if service in wanted or not self.is_up(service, seen):
                wanted.add(service)
                wanted.update(
                    each.service
                    for each in self.project.dependencies(service)
                    if any(one.status != "running" for one in seen.of(each.service))
                )
        return [service for service in self.services if service in wanted]

    def missing(self, seen: Snapshot) -> list[str]:
        """The services that have fewer containers than they should."""
        return [each for each in self.services if self._is_short(each, seen)]

    def is_busy(self, seen: Snapshot) -> bool:
        """Whether somebody else is working on containers of the unit."""
        return not seen.busy.isdisjoint(self.services)

    def is_ending(self, seen: Snapshot) -> bool:
        """Whether something of the unit still runs and will soon have ended."""
        return any(each.id in seen.ending for name in self.services for each in seen.of(name))

    def taken(self, seen: Snapshot) -> list[Listed]:
        """The strangers that Compose would take for containers of this unit, and replace."""
        return [each for each in seen.strangers if each.labels[SERVICE_LABEL] in self.services]

    def for_compose(self, seen: Snapshot, *, changed: bool) -> set[str]:
        """The services that only Compose can start as they are meant.

        What it writes into a container stays there: it is needed once, and after a change.

        Args:
            changed: whether something of the files or the containers is new since the last start.
        """
        services = [self.project.services[name] for name in self.services]
        return {
            each.name
            for each in services
            if each.has_start_hooks
            or (each.is_filled and (changed or any(not c.started_at for c in seen.of(each.name))))
        }

    def is_due(self, service: str, seen: Snapshot, waiting: Collection[str]) -> bool:
        """Whether all that a service waits for has happened.

        Args:
            waiting: the services that have still to be started.
        """
        return all(
            each.service not in waiting
            and all(_fulfils(one, each) for one in seen.of(each.service))
            for each in self.project.dependencies(service)
        )

    def blocker(self, service: str, seen: Snapshot) -> str:
        """Why a service can never be started now, as Compose sees it; empty if it can."""
        for each in self.project.dependencies(service):
            if each.condition is not Condition.HEALTHY or not each.required:
                continue
            for container in seen.of(each.service):
                if container.status == "running" and container.health == "unhealthy":
                    return f"{service} depends on {each.service}, which is unhealthy"
                if container.health is None and container.status == "running":
                    return f"{service} waits for {each.service}, which has no healthcheck"
        return ""

    def failed(self, seen: Snapshot, services: Iterable[str]) -> Iterator[Container]:
        """The containers of these services that ended and should not have.

        One that its restart policy restarts again and again counts as well.
        """
        for service in services:
            if self._is_optional(service):
                continue
            for each in seen.of(service):
                ended = each.status in ("exited", "dead")
                loops = each.status == "restarting" and each.restarts >= CRASH_LOOP_RESTARTS
                if (ended and not self._has_done_its_work(each, seen)) or loops:
                    yield each

    def published(self, seen: Snapshot, host: str, port: int) -> Container | None:
        """The container behind the published port, or the only required one."""
        mine = [each for service in self.services for each in seen.of(service)]
        publishing = [each for each in mine if each.publishes(host, port)]
        required = [each for each in mine if each.service in self.required]
        if publishing:
            return publishing[0]
        return required[0] if len(required) == 1 else None

    def candidates(self, seen: Snapshot, host: str, port: int) -> list[Container]:
        """The containers by which the unit may listen on a port: its own and those whose network
        they use. Where the file has none of its own publish it, any of the project: its front may
        be no part of the unit."""
        services = [self.project.services[name] for name in self.services]
        own = [each for name in self.services for each in seen.of(name)]
        if not any(leads_to(each.published, host, port) for each in services):
            own = list(seen.everything())
        lenders = [seen.lenders.get(each.lender) for each in own if each.lender]
        return own + [each for each in lenders if each is not None]

    def borrows_from(self, other: Listed) -> bool:
        """Whether a container that is no part of the project lends the unit its network."""
        lenders = {self.project.services[name].lender for name in self.services}
        return not lenders.isdisjoint((other.name, other.id))

    def to_stop(self, seen: Snapshot, neighbours: Iterable[Unit]) -> list[list[str]]:
        """The services to stop, in groups: each group's dependents are in groups before it.

        Left running is what somebody else needs: a running service outside this unit that
        depends on it, and what other configured services name. A required service of this unit is
        left running only for other configured services.

        Args:
            neighbours: the parts of other configured services in the same project.
        """
        theirs = {name for unit in neighbours for name in unit.required} - self.required
        outside = [
            each for each in seen.everything() if each.runs and each.service not in self.services
        ]
        # What runs was made from what its labels say, whatever the file says of it by now.
        known = Project.from_containers(self.project.name, outside).services
        closure = Project(self.project.name, {**self.project.services, **known}).closure
        kept = (set(closure(known)) - self.required) | set(closure(known.keys() & theirs)) | theirs
        return self._in_groups([name for name in self.services if name not in kept])

    def _in_groups(self, services: list[str]) -> list[list[str]]:
        """Longest way from a service that nobody depends on decides the group."""
        depth = dict.fromkeys(services, 0)
        for service in reversed(services):
            for dependency in self.project.dependencies(service):
                if dependency.service in depth:
                    deeper = max(depth[dependency.service], depth[service] + 1)
                    depth[dependency.service] = deeper
        groups: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
        for service, at in depth.items():
            groups[at].append(service)
        return groups

    def _is_short(self, service: str, seen: Snapshot) -> bool:
        return len(seen.of(service)) < self.project.services[service].replicas

    def _awaited(self, service: str) -> set[Condition]:
        return {
            each.condition
            for name in self.services
            for each in self.project.dependencies(name)
            if each.service == service
        }

    def _is_optional(self, service: str) -> bool:
        """Whether the unit can do without it."""
        return service not in self.required and not any(
            each.required
            for name in self.services
            for each in self.project.dependencies(name)
            if each.service == service
        )

    def _has_done_its_work(self, container: Container, seen: Snapshot) -> bool:
        return (
            container.status == "exited"
            and container.exit_code == 0
            and container.id not in seen.told_to_end
            and self.may_end(container.service)
        )


CRASH_LOOP_RESTARTS = 5
"""Restarts in a row after which a restart policy is no longer taken for patience: some 3 s."""


def _published(ports: Iterable[Mapping[str, Any]]) -> Iterator[Binding]:
    for each in ports:
        if each.get("protocol", "tcp") == "tcp":
            for port in port_range(str(each.get("published", ""))):
                yield each.get("host_ip", ""), port


def _is_filled(service: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether it has secrets or configs whose content stands in the Compose file or in the
    environment."""
    for kind in ("secrets", "configs"):
        for each in service.get(kind) or []:
            source = (config.get(kind) or {}).get(each.get("source")) or {}
            if source.get("content") or source.get("environment"):
                return True
    return False


def _fulfils(container: Container, dependency: Dependency) -> bool:
    """Whether a container that has been started is what its dependent waits for."""
    match dependency.condition:
        case Condition.STARTED:
            return True
        case Condition.COMPLETED:
            return container.status == "exited"
        case _ if container.health == "unhealthy":
            return not dependency.required
        case _:
            return container.health == "healthy" and container.status == "running"


def _dependencies(entries: Mapping[str, Any]) -> Iterator[Dependency]:
    conditions = {each.value: each for each in Condition}
    for service, entry in entries.items():
        condition = conditions.get(str(entry.get("condition")), Condition.STARTED)
        yield Dependency(service, condition, bool(entry.get("required", True)))
