"""Whose is the port where a service is to listen?

That somebody answers there proves nothing: it may be an unrelated program, which would be handed
other people's requests. Before a start nobody may listen; after it, either a container of the
service publishes the port, or the listener is one of its processes, where the system tells.

Wherever containers are asked for, those are meant that may be the service's (`Unit.candidates`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from autostart_proxy.backends.docker.api import DockerClient, is_loopback
from autostart_proxy.backends.docker.container import Binding, Container, Listed, leads_to
from autostart_proxy.backends.listeners import listeners
from autostart_proxy.errors import BackendRefused, Misconfigured, PortInUse

_CONNECT_SECONDS = 0.25
"""Nobody listens who does not answer by then; on the same machine it takes microseconds."""


class Port:
    """A host and a port, as the configuration has them."""

    def __init__(self, host: str, port: int, client: DockerClient) -> None:
        self.host = host
        self.number = port
        self._client = client

    def __str__(self) -> str:
        return _written((self.host, self.number))

    async def is_taken(self, containers: Collection[Container]) -> bool:
        """Whether somebody listens there though nothing of the service runs that could."""
        if any(each.runs and self._may_listen(each) for each in containers):
            return False
        if is_loopback(self.host) and not self._client.is_local:
            return False  # who listens here says nothing of the machine where the engine is
        return await self.answers()

    async def answers(self, port: int | None = None) -> bool:
        """Whether somebody accepts connections there, or at another port of the same host."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(self.host, port or self.number)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    def is_published(self, containers: Collection[Container]) -> bool:
        """Whether it leads to a container of the service that runs."""
        return any(each.runs and each.publishes(self.host, self.number) for each in containers)

    async def publisher(self, port: int | None = None) -> Listed | None:
        """The container that has the port, or another one of the same host, published."""
        for each in await self._client.running_containers():
            if leads_to(each.published, self.host, port or self.number):
                return each
        return None

    async def in_use(self, containers: Collection[Container], port: int | None = None) -> PortInUse:
        """What to say of somebody else who has it, or another port of the same host."""
        port = port or self.number
        who: object = await self.publisher(port)
        if who is None:
            found = await asyncio.to_thread(listeners, self.host, port)
            who = found[0] if found else "a program that the system does not name"
        detail = f"{_written((self.host, port))} is used by {who}"
        return PortInUse(detail="; ".join([detail, *self._elsewhere(containers)]))

    def check_publication(self, containers: Collection[Container]) -> None:
        """Refuse what is published, but certainly not here.

        Args:
            containers: those that run; or, before they are started, all.
        Raises:
            BackendRefused: with the ports that are published instead.
        """
        if not is_loopback(self.host) or any(map(self._may_listen, containers)):
            return
        for elsewhere in self._elsewhere(containers):
            wrong = f"nothing of the service listens on {self}: {elsewhere}; correct proxyPort"
            raise BackendRefused(Misconfigured(detail=wrong))

    async def check_listener(self, containers: Collection[Container]) -> None:
        """Refuse an answer from somebody else.

        Raises:
            BackendRefused: with `PortInUse`, which names whom.
        """
        if self.is_published(containers):
            return
        publisher = await self.publisher()
        found = await asyncio.to_thread(listeners, self.host, self.number)
        known = [each for each in found if each.pid is not None]
        own = {each.id for each in containers}
        strange = publisher is not None and publisher.id not in own
        if strange or (known and not any(each.container in own for each in known)):
            raise BackendRefused(await self.in_use(containers))

    def _may_listen(self, container: Container) -> bool:
        """Whether it may be this container that listens once it runs: it publishes the port, or
        its network is not its own, so that what it publishes says nothing."""
        return (
            container.publishes(self.host, self.number)
            or container.network_mode == "host"
            or bool(container.lender)
        )

    def _elsewhere(self, containers: Collection[Container]) -> list[str]:
        """Where the service is published instead, if it is."""
        published = {each for container in containers for each in container.published}
        if not published or leads_to(published, self.host, self.number):
            return []
        return [f"the service publishes {written(published)}"]


def written(bindings: Iterable[Binding]) -> str:
    """Addresses and ports as people write them, in order."""
    return ", ".join(dict.fromkeys(map(_written, sorted(bindings, key=lambda each: each[::-1]))))


def _written(binding: Binding) -> str:
    host, port = binding
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
