"""Which backend runs which kind of unit. Each is imported only where a service needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol, cast

from autostart_proxy.backends import Backend
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.units import CommandUnit, ComposeUnit, Unit

MODULES: Mapping[type[Unit], str] = MappingProxyType(
    {
        ComposeUnit: "compose.backend",
        CommandUnit: "process",
    }
)
"""By kind of unit, the module of its backend."""

Make = Callable[[ServiceConfig], Backend]


class BackendModule(Protocol):
    """What a backend's module has beside the backend."""

    def open_backends(self) -> Make:
        """Return what makes the backends of one fleet; they share what they can share."""
        ...

    def missing(self, unit: Any, /) -> Iterator[tuple[str, str]]:
        """Yield the keys of a unit that name something that is not there, and why not."""
        ...


class Backends:
    """Makes the backends of one fleet."""

    def __init__(self) -> None:
        self._makers: dict[str, Make] = {}

    def make(self, config: ServiceConfig) -> Backend:
        """Return a backend for what a service is made of; nothing is started or looked at yet."""
        name = MODULES[type(config.unit)]
        if name not in self._makers:
            self._makers[name] = _module(name).open_backends()
        return self._makers[name](config)


def missing(unit: Unit) -> Iterator[tuple[str, str]]:
    """Yield the keys of a unit that name something that is not there, and why not."""
    yield from _module(MODULES[type(unit)]).missing(unit)


def _module(name: str) -> BackendModule:
    return cast(BackendModule, import_module(f"autostart_proxy.backends.{name}"))
