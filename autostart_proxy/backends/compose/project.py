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

from autostart_proxy.backends.docker.container import Container


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
    """A service of a Compose file.

    `container_names` are the names its first container may have; `active` is false for what
    `docker compose up` leaves out (a profile, or no replicas).
    """

    name: str
    depends_on: tuple[Dependency, ...] = ()
    container_names: tuple[str, ...] = ()
    config_hash: str | None = None
    active: bool = True


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
                active=replicas != 0 and not service.get("profiles"),
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
        """The required services with all that they depend on; all active ones for None.

        Args:
            names: services or containers.
        Raises:
            KeyError: no service or container of the project has the name it carries.
        """
        if names is None:
            active = [each.name for each in self.services.values() if each.active]
            awaited = {to.service for name in active for to in self.services[name].depends_on}
            return Unit(self, frozenset(active) - awaited, self.closure(active))
        required = [self._find(name) for name in names]
        return Unit(self, frozenset(required), self.closure(required))

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
        """What a service waits for, without what is optional and not there."""
        return [
            each
            for each in self.services[name].depends_on
            if each.service in self.services
            and (each.required or self.services[each.service].active)
        ]

    def _find(self, name: str) -> str:
        if name in self.services:
            return name
        for service in self.services.values():
            if name in service.container_names:
                return service.name
        raise KeyError(name)


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
        containers = seen.of(service)
        return bool(containers) and all(
            each.status == "running" or self._has_done_its_work(each, seen) for each in containers
        )

    def all_up(self, seen: Snapshot) -> bool:
        """Whether the whole unit is up."""
        return all(self.is_up(service, seen) for service in self.services)

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
        """The services that have no container."""
        return [each for each in self.services if not seen.of(each)]

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

    def published(self, seen: Snapshot, port: int) -> Container | None:
        """The container behind the published port, or the only required one."""
        mine = [each for service in self.services for each in seen.of(service)]
        publishing = [each for each in mine if port in each.ports]
        required = [each for each in mine if each.service in self.required]
        if publishing:
            return publishing[0]
        return required[0] if len(required) == 1 else None

    def to_stop(self, seen: Snapshot, neighbours: Iterable[Unit]) -> list[list[str]]:
        """The services to stop, in groups: each group's dependents are in groups before it.

        Left running is what somebody else needs: a running service outside this unit that
        depends on it, and what other configured services name. A required service of this unit is
        left running only for other configured services.

        Args:
            neighbours: the parts of other configured services in the same project.
        """
        closure = self.project.closure
        theirs = {name for unit in neighbours for name in unit.required} - self.required
        outside = {
            name
            for name in self.project.services
            if name not in self.services and any(each.status == "running" for each in seen.of(name))
        }
        kept = (set(closure(outside)) - self.required) | set(closure(outside & theirs)) | theirs
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was seen of a project at one moment."""

    containers: Mapping[str, list[Container]]
    told_to_end: Collection[str] = frozenset()

    @classmethod
    def of_all(cls, containers: Iterable[Container], told_to_end: Collection[str]) -> Snapshot:
        """Sort containers by service; those being removed count as gone."""
        by_service: dict[str, list[Container]] = {}
        for each in containers:
            if each.status != "removing":
                by_service.setdefault(each.service, []).append(each)
        return cls(by_service, frozenset(told_to_end))

    def of(self, service: str) -> list[Container]:
        """The containers of a service."""
        return self.containers.get(service, [])


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
