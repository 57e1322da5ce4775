"""What was seen of a project at one moment. Pure.

- A container that is being removed is gone.
- One that is being replaced (as `docker compose up` does it: create the new one, stop and remove
  the old one, start the new one) counts until it is removed; the new one does not until then.
- While somebody else stops, removes or replaces a service's containers, the service is *busy*: to
  start or create something then would get in their way, and fail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from autostart_proxy.backends.docker.container import Container, Listed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was seen of a project at one moment.

    Attributes:
        project: the name under which the containers run: not always the one that Compose would
            give them.
        containers: those that count, by service.
        told_to_end: ids of those whose end is no crash: somebody had asked for it.
        ending: ids of those that still run and were told to end just now.
        busy: the services that somebody else is working on.
        lenders: by id and by name, the containers whose network others use; None for one that is
            gone. Not in here: unknown.
        strangers: containers that were made from another folder and yet bear the project's name.
    """

    containers: Mapping[str, list[Container]]
    told_to_end: frozenset[str] = frozenset()
    ending: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()
    lenders: Mapping[str, Container | None] = field(default_factory=dict)
    project: str = ""
    strangers: tuple[Listed, ...] = ()

    @classmethod
    def of_all(
        cls,
        containers: Iterable[Container],
        *,
        told_to_end: Collection[str] = (),
        ending: Collection[str] = (),
        lenders: Mapping[str, Container | None] | None = None,
        project: str = "",
        strangers: Iterable[Listed] = (),
    ) -> Snapshot:
        """Sort a project's containers.

        Args:
            lenders: strangers whose network one of these uses.
        """
        containers = list(containers)
        busy = {each.service for each in containers if each.status == "removing"}
        by_service: dict[str, list[Container]] = {}
        for place in _places(each for each in containers if each.status != "removing"):
            *leaving, newest = place
            if leaving and newest.is_replacement:
                place = leaving
                if not leaving[-1].runs:
                    busy.add(newest.service)
            busy.update(each.service for each in place if each.runs and each.id in ending)
            by_service.setdefault(newest.service, []).extend(place)
        own = {key: each for each in containers for key in (each.id, each.name)}
        return cls(
            by_service,
            frozenset(told_to_end),
            frozenset(ending),
            frozenset(busy),
            {**(lenders or {}), **own},
            project,
            tuple(strangers),
        )

    def of(self, service: str) -> list[Container]:
        """The containers of a service."""
        return self.containers.get(service, [])

    def everything(self) -> Iterator[Container]:
        """All that count."""
        for each in self.containers.values():
            yield from each

    def is_connected(self, container: Container) -> bool:
        """Whether a container that runs still has the network that it was started in.

        One that uses another's network keeps what that one had when it itself was started: once
        the lender has been started again, nothing reaches it any more.
        """
        if not container.lender or container.lender not in self.lenders:
            return True
        lender = self.lenders[container.lender]
        return lender is not None and lender.runs and lender.started_at <= container.started_at


def _places(containers: Iterable[Container]) -> Iterable[list[Container]]:
    """Those that are the same replica of the same service, oldest first."""
    places: dict[tuple[str, str], list[Container]] = {}
    for each in sorted(containers, key=lambda each: each.created_at):
        places.setdefault((each.service, each.number), []).append(each)
    return places.values()
