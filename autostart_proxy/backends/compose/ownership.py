"""Which containers were made from a folder, and under which name it runs. Pure.

The name of a Compose project proves nothing: two folders may have the same, and one folder may be
run under any (`docker compose -p`). What proves it are the labels that say from which folder and
which files a container was made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from autostart_proxy.backends.docker.container import (
    Container,
    config_files,
    leads_to,
    working_dir,
)


@dataclass(frozen=True, slots=True)
class Home:
    """Where a project comes from.

    Attributes:
        folders: the names of its folder: as it is written, and what that leads to.
        files: likewise of its Compose files; empty where they are not known.
    """

    folders: frozenset[str]
    files: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a container was made from here."""
        return working_dir(labels) in self.folders or self.holds_file(labels)

    def holds_file(self, labels: Mapping[str, str]) -> bool:
        """Whether a container was made from one of the Compose files, from wherever."""
        return not self.files.isdisjoint(map(str, config_files(labels)))


def usual_name(folder: str) -> str:
    """What Compose calls the project of a folder, unless a file says otherwise."""
    return re.sub("[^-_a-z0-9]", "", folder.lower()).lstrip("-_")


def effective_project(
    own: str,
    found: Iterable[Container],
    *,
    needed: Collection[str],
    port: tuple[str, int],
    may_keep: bool,
) -> str:
    """Under which name the project of a folder has to be looked at, started and stopped.

    Its own name, unless it runs under another one that somebody gave it by hand. Under that it is
    started again too, where nobody has ever run it under its own: its volumes bear the name.

    Args:
        own: what Compose would call it now.
        found: the containers that were made from the folder.
        needed: the services that a project must have to be this one.
        port: host and port where it must listen, if it publishes anything at all.
        may_keep: whether the own name is one that nobody has chosen.
    """
    projects: dict[str, list[Container]] = {}
    for each in sorted(found, key=lambda each: each.started_at, reverse=True):
        projects.setdefault(each.project, []).append(each)

    def is_same(name: str) -> bool:
        services = {each.service for each in projects[name]}
        published = {binding for each in projects[name] for binding in each.published}
        return services.issuperset(needed) and (not published or leads_to(published, *port))

    mine = projects.pop(own, [])
    if any(each.runs for each in mine):
        return own
    others = [name for name in projects if is_same(name)]
    for name in others:
        if any(each.runs for each in projects[name]):
            return name
    if may_keep and others and not any(each.started_at for each in mine):
        return others[0]
    return own
