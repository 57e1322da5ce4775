"""What Compose would refuse, and what would get in each other's way, before anything is started."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from autostart_proxy.backends.cancellation import together
from autostart_proxy.backends.compose.cli import Compose, ComposeFailed
from autostart_proxy.backends.compose.fingerprint import fingerprint
from autostart_proxy.backends.compose.folder import ComposeFolder
from autostart_proxy.backends.compose.port import written
from autostart_proxy.backends.docker.api import docker_host, is_loopback
from autostart_proxy.config.units import ComposeUnit
from autostart_proxy.errors import BackendRefused

Problem = tuple[str, str, str]
"""The service's host, the key that is at fault, and why."""


async def problems(units: Mapping[str, ComposeUnit]) -> list[Problem]:
    """Have Compose read the folders of all services; nothing is asked of the engine.

    Takes some 0.3 s for each, as many at once as there are processors.

    Args:
        units: by the host of their service.
    """
    folders = {host: ComposeFolder(host, unit, docker_host()) for host, unit in units.items()}
    turns = asyncio.Semaphore(os.cpu_count() or 1)

    async def look(host: str) -> list[Problem]:
        async with turns:
            return await _look(host, units[host], folders[host])

    found = await together(look(host) for host in folders)
    return [each for several in found for each in several] + list(_clashes(folders))


async def env_files(host: str, unit: ComposeUnit) -> Collection[Path]:
    """The env files that Compose reads for a folder; none where Compose cannot be run."""
    compose = Compose(unit.folder, unit.profiles, docker_host(), host)
    try:
        return (await fingerprint(unit.folder, compose.interpolated)).env_files
    except BackendRefused:
        return ()


async def _look(host: str, unit: ComposeUnit, folder: ComposeFolder) -> list[Problem]:
    try:
        known = (await folder.unit()).project
    except BackendRefused as refusal:
        return [(host, "composeDir", " ".join(refusal.reason.detail.split()))]
    where = unit.host, unit.port
    if not is_loopback(unit.host):  # of another machine nothing is known
        return []
    try:  # the front may be no part of the service: the whole file counts
        if known.may_listen(*where) or (await folder.whole()).may_listen(*where):
            return []
    except ComposeFailed:  # what is not active need not be in order
        return []
    published = written({each for one in known.services.values() for each in one.published})
    reason = (
        f"nothing in {folder.path} publishes {written([where])}; published there:"
        f" {published or 'nothing'}; correct proxyPort, or `ports` in the Compose file"
    )
    return [(host, "proxyPort", reason)]


def _clashes(folders: Mapping[str, ComposeFolder]) -> Iterator[Problem]:
    """Different folders that make one project: each may take the other's containers for its own,
    or for leftovers, and replace or remove them."""
    for (one, first), (other, second) in combinations(folders.items(), 2):
        if first.known is None or second.known is None or first.path.samefile(second.path):
            continue
        project = first.known.project.name
        if project == second.known.project.name:
            reason = (
                f"{first.path} and {second.path} are both a project {project}; give one of them"
                " another name (`name:` in its Compose file)"
            )
            yield from ((host, "composeDir", reason) for host in (one, other))
