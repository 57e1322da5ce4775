"""Which backend runs which kind of unit. Each is imported only where a service needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from autostart_proxy.backends import Backend
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.units import CommandUnit, ComposeUnit, Unit

Make = Callable[[str, ServiceConfig], Backend]
"""Makes the backend of a service; its host is what the service is called in the log."""

Problem = tuple[str, str, str]
"""A service's host, the key that is at fault, and why."""


class BackendModule(Protocol):
    """What a backend's module has beside the backend."""

    def open_backends(self) -> Make:
        """Return what makes the backends of one fleet; they share what they can share."""
        ...

    def missing(self, unit: Any, /) -> Iterator[tuple[str, str]]:
        """Yield the keys of a unit that name something that is not there, and why not."""
        ...


def _compose() -> BackendModule:
    from autostart_proxy.backends.compose import backend

    return backend


def _process() -> BackendModule:
    from autostart_proxy.backends import process

    return process


MODULES: Mapping[type[Unit], Callable[[], BackendModule]] = MappingProxyType(
    {
        ComposeUnit: _compose,
        CommandUnit: _process,
    }
)
"""By kind of unit, what imports its backend."""


class Backends:
    """Makes the backends of one fleet."""

    def __init__(self) -> None:
        self._makers: dict[type[Unit], Make] = {}

    def make(self, host: str, config: ServiceConfig) -> Backend:
        """Return a backend for what a service is made of; nothing is started or looked at yet."""
        kind = type(config.unit)
        if kind not in self._makers:
            self._makers[kind] = MODULES[kind]().open_backends()
        return self._makers[kind](host, config)


def missing(unit: Unit) -> Iterator[tuple[str, str]]:
    """Yield the keys of a unit that name something that is not there, and why not."""
    yield from MODULES[type(unit)]().missing(unit)


async def problems(units: Mapping[str, Unit]) -> list[Problem]:
    """All that can be told of units before a start, also what takes a while to find out.

    Args:
        units: by the host of their service.
    """
    found = [(host, *each) for host, unit in units.items() for each in missing(unit)]
    lacking = {host for host, _, _ in found}
    composed = {
        host: unit
        for host, unit in units.items()
        if isinstance(unit, ComposeUnit) and host not in lacking
    }
    if composed:
        from autostart_proxy.backends.compose import check

        found += await check.problems(composed)
    return found


async def env_files(units: Mapping[str, Unit]) -> set[Path]:
    """The env files of units, which may hold secrets; takes no longer than `problems`.

    Args:
        units: by the host of their service.
    """
    found: set[Path] = set()
    for host, unit in units.items():
        if isinstance(unit, ComposeUnit):
            from autostart_proxy.backends.compose import check

            found.update(await check.env_files(host, unit))
    return found
