"""What Compose would refuse, and what would get in each other's way, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from autostart_proxy.backends.cancellation import together
from autostart_proxy.backends.compose.cli import ComposeFailed
from autostart_proxy.backends.compose.folder import ComposeFolder
from autostart_proxy.backends.compose.port import written
from autostart_proxy.backends.docker.api import docker_host, is_loopback
from autostart_proxy.config.units import ComposeUnit
from autostart_proxy.errors import BackendRefused

Problem = tuple[str, str, str]
"""The service's host, the key that is at fault, and why."""


async def problems(units: Mapping[str, ComposeUnit]) -> list[Problem]:
    """Have Compose read the folders of all services; nothing is asked of the engine.

    Takes some 0.3 s for each, all at once.

    Args:
        units: by the host of their service.
    """
    folders = {host: ComposeFolder(host, unit, docker_host()) for host, unit in units.items()}
    found = await together(_refusals(host, folder) for host, folder in folders.items())
    ports = await together(_unreachable(host, units[host], folders[host]) for host in folders)
    return [each for several in found + ports for each in several] + list(_clashes(folders))


async def _refusals(host: str, folder: ComposeFolder) -> list[Problem]:
    try:
        await folder.unit()
    except BackendRefused as refusal:
        return [(host, "composeDir", " ".join(refusal.reason.detail.split()))]
    return []


async def _unreachable(host: str, unit: ComposeUnit, folder: ComposeFolder) -> list[Problem]:
    """Whether nothing will listen at a service's port. Its front may be no part of the service,
    so the whole file counts."""
    where = unit.host, unit.port
    if folder.known is None or not is_loopback(unit.host):
        return []
    known = folder.known.project
    try:
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
    """Different folders that make containers of the same names: each would replace the other's."""
    for (one, first), (other, second) in combinations(folders.items(), 2):
        if first.known is None or second.known is None or first.path.samefile(second.path):
            continue
        same_project = first.known.project.name == second.known.project.name
        shared = sorted(set(first.known.services) & set(second.known.services))
        if same_project and shared:
            reason = (
                f"{first.path} and {second.path} make the same containers: both are a project"
                f" {first.known.project.name} with {', '.join(shared)}; give one of them another"
                " name (`name:` in its Compose file)"
            )
            yield from ((name, "composeDir", reason) for name in (one, other))
