"""All services: boot, live reload, shutdown.

Docker is the truth: nothing is stored, and a service found running at boot is adopted by its own
watcher with a full idle timeout.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from autostart_proxy import errors
from autostart_proxy.backends.registry import Backends, Make, missing
from autostart_proxy.config.model import Config
from autostart_proxy.journal import ConfigApplied, Journal
from autostart_proxy.service import Service
from autostart_proxy.status import ASLEEP, ServiceStatus
from autostart_proxy.wire.hosts import Routes


class UnknownService(Exception):
    """An operator named a service that is not configured."""


class Fleet:
    """The configured services by host.

    Args:
        journal: is told what becomes of them.
        make_backend: how a service's backend is made; tests give their own.
    """

    def __init__(self, journal: Journal, make_backend: Make | None = None) -> None:
        self._journal = journal
        self._make_backend = make_backend or Backends().make
        self._services: dict[str, Service] = {}
        self._retired: set[Service] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._routes: Routes = Routes({})

    def find(self, host: str) -> Service | None:
        """The service of a canonical host, or None."""
        key = self._routes.find(host)
        return None if key is None else self._services[key]

    def apply(self, config: Config) -> None:
        """Make the fleet what the configuration says, without cutting anything that flows.

        New limits hold at once. A service that is gone, or whose containers or port changed,
        serves the requests it has and then ends; what it runs is left running (Compose), since
        the same project may stand in the new configuration under another name.
        """
        old, new = self._services, {}
        for host, wanted in config.services.items():
            present = old.pop(host, None)
            if present is not None and present.config.unit == wanted.unit:
                present.reconfigure(wanted)
                new[host] = present
                continue
            if present is not None:
                self._retire(present)
            new[host] = Service(host, wanted, self._make_backend(host, wanted), self._journal)
        for gone in old.values():
            self._retire(gone)
        self._services = new
        self._routes = Routes(config.services)
        self._journal.record(ConfigApplied(len(new)))

    async def snapshot(self) -> list[ServiceStatus]:
        """The status of every service, in the order of the configuration.

        What does not run is asked for what it is made of: it may be missing.
        """
        services = [*self._services.values()]
        return [await self._status(service) for service in services]

    def named(self, name: str) -> Service:
        """The service with this host, alias or display name.

        Raises:
            UnknownService: there is none, or several have this display name.
        """
        found = self.find(name.lower())
        if found is not None:
            return found
        called = [each for each in self._services.values() if each.config.name == name]
        if len(called) == 1:
            return called[0]
        hosts = ", ".join(self._services) or "none"
        problem = "several services have the name" if called else "no service has the name or host"
        raise UnknownService(f"{problem} {name!r}; configured hosts: {hosts}")

    async def wake(self, name: str) -> ServiceStatus:
        """Start a service on an operator's word; returns once it is ready.

        Raises:
            UnknownService: no such service.
            ProxyError: the start failed.
        """
        service = self.named(name)
        service.order_wake()
        await service.until_awake()
        return service.status()

    def start_wake(self, name: str) -> ServiceStatus:
        """As `wake`, but return at once."""
        service = self.named(name)
        service.order_wake()
        return service.status()

    async def sleep(self, name: str) -> ServiceStatus:
        """Drain and stop a service on an operator's word; returns once that is over.

        Raises:
            UnknownService: no such service.
            ProxyError: the stop failed, or the service was woken meanwhile.
        """
        service = self.named(name)
        await service.sleep()
        return service.status()

    def refuse(self) -> None:
        """Shutdown, first half: requests that wait are answered; flowing ones go on."""
        for service in [*self._services.values(), *self._retired]:
            service.refuse(errors.ShuttingDown())

    async def close(self) -> None:
        """Shutdown, second half: let go of every backend. Containers are left running."""
        services = [*self._services.values(), *self._retired]
        self._services, self._retired = {}, set()
        self._routes = Routes({})
        await asyncio.gather(*(each.close() for each in services), *self._closing)

    async def _status(self, service: Service) -> ServiceStatus:
        status = service.status()
        if status.state not in ASLEEP:
            return status
        lacks = await asyncio.to_thread(lambda: [*missing(service.config.unit)])
        known = [f"{key}: {why}" for key, why in lacks] or [*filter(None, [service.misconfigured])]
        if not known:
            return status
        return replace(status, why="; ".join(f"misconfigured: {each}" for each in known))

    def _retire(self, service: Service) -> None:
        self._retired.add(service)
        service.retire(lambda: self._end(service))

    def _end(self, service: Service) -> None:
        if service in self._retired:
            self._retired.discard(service)
            closing = asyncio.get_running_loop().create_task(service.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
