"""What Compose would refuse, and what would get in each other's way, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from autostart_proxy.backends.cancellation import together
from autostart_proxy.backends.compose.folder import ComposeFolder
from autostart_proxy.backends.docker.api import docker_host
from autostart_proxy.config.units import ComposeUnit
from autostart_proxy.errors import BackendRefused, Misconfigured

Problem = tuple[str, str, str]
"""The service, the key that is at fault, and why."""


async def problems(units: Mapping[str, ComposeUnit]) -> list[Problem]:
    """Have Compose read the folders of all services; nothing is asked of the engine.

    Takes some 0.3 s for each. Without Compose there is nothing to tell.
    """
    folders = {name: ComposeFolder(name, unit, docker_host()) for name, unit in units.items()}
    found = await together(_refusals(name, folder) for name, folder in folders.items())
    return [each for refusals in found for each in refusals] + list(_clashes(folders))


async def _refusals(name: str, folder: ComposeFolder) -> list[Problem]:
    try:
        await folder.unit()
    except BackendRefused as refusal:
        if isinstance(refusal.reason, Misconfigured):
            return [(name, "composeDir", refusal.reason.detail)]
    return []


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
