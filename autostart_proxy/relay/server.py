"""Where clients connect: listening, whom to trust, the clock for all, and the end.

A client that is not read cannot be seen leaving by reading. The kernel is asked instead
(`POLLRDHUP`, which tells the end of the stream even behind unread bytes), twice a second for all
such clients in one call. The same sweep enforces every time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Final

from autostart_proxy.journal import Journal
from autostart_proxy.relay.downstream import DownstreamConnection
from autostart_proxy.relay.memory import Memory
from autostart_proxy.relay.peers import Service
from autostart_proxy.relay.turns import Turns
from autostart_proxy.relay.upstream import Pool
from autostart_proxy.unix_socket import CannotBind, bind

SWEEP_SECONDS = 0.5
BACKLOG = 1024

_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

Trusted = Iterable[str | IPv4Address | IPv6Address | IPv4Network | IPv6Network]


class CannotListen(Exception):
    """An address cannot be had; the message says why."""


class Server:
    """Listens, and serves every client that connects.

    Args:
        find: the service of a canonical host, or None.
        journal: is told how each request ended.
        trusted_proxies: addresses and networks whose X-Forwarded-* and X-Request-ID are
            believed. Clients of a unix socket always are: its file mode says who may connect.

    Attributes:
        connections: every open client.
        draining: whether the server is closing; every answer then ends its connection.
    """

    def __init__(
        self,
        find: Callable[[str], Service | None],
        journal: Journal,
        *,
        trusted_proxies: Trusted = ("127.0.0.1", "::1"),
    ) -> None:
        self.find: Final = find
        self.journal: Final = journal
        self.turns: Final = Turns()
        self.pool: Final = Pool(self.turns)
        self.connections: Final[set[DownstreamConnection]] = set()
        self.draining = False
        self._deserted = asyncio.Event()
        self.trust(trusted_proxies)
        self._listeners: list[asyncio.Server] = []
        self._unix_paths: list[str] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._memory: Final = Memory()
        self._id_prefix = os.urandom(5).hex().encode()
        self._ids = count(1)

    def __repr__(self) -> str:
        busy = sum(1 for each in self.connections if each.exchange is not None)
        return f"<Server {len(self.connections)} clients, {busy} with a request, {self.pool!r}>"

    def trust(self, proxies: Trusted) -> None:
        """Replace the trusted proxies; holds for clients that connect from now on."""
        networks = [ip_network(str(each)) for each in proxies]

        @lru_cache(maxsize=1024)
        def trusts(peer: bytes) -> bool:
            if not peer:
                return True
            address = ip_address(peer.decode().partition("%")[0])
            if isinstance(address, IPv6Address) and address.ipv4_mapped:
                address = address.ipv4_mapped
            return any(address in network for network in networks)

        self.trusts = trusts

    def new_request_id(self) -> bytes:
        """An identifier that no other request of this or another run of the proxy has."""
        return b"%b-%x" % (self._id_prefix, next(self._ids))

    def joined(self, connection: DownstreamConnection) -> None:
        """A client has connected."""
        self.connections.add(connection)

    def left(self, connection: DownstreamConnection) -> None:
        """A client's connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._deserted.set()

    async def listen(self, address: str, group: str | None = None) -> str:
        """Accept clients on `host:port` or `unix:/path` (mode 0660).

        Args:
            group: of the unix socket; None: the group of this process.
        Returns:
            The address, with the port that the system chose where 0 was asked for.
        Raises:
            CannotListen: the address is in use or not allowed; the message says which.
        """
        try:
            address = await self._listen(address, group)
        except CannotBind as error:
            raise CannotListen(str(error)) from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise CannotListen(reason) from error
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        return address

    async def _listen(self, address: str, group: str | None) -> str:
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            listener = await loop.create_unix_server(
                lambda: DownstreamConnection(self), sock=bind(Path(path), group), backlog=BACKLOG
            )
            self._unix_paths.append(path)
        else:
            host, _, port = address.rpartition(":")
            listener = await loop.create_server(
                lambda: DownstreamConnection(self), host.strip("[]"), int(port), backlog=BACKLOG
            )
            address = f"{host}:{listener.sockets[0].getsockname()[1]}"
        self._listeners.append(listener)
        return address

    async def close(self, timeout_seconds: float) -> None:
        """Stop accepting, let requests in flight finish, then cut off what is left.

        Args:
            timeout_seconds: for requests in flight; idle connections are closed at once.
        """
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for path in self._unix_paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        for connection in list(self.connections):
            connection.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._until_no_client()
        for connection in list(self.connections):
            connection.reset()
        await self._until_no_client()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.pool.close()

    async def _until_no_client(self) -> None:
        if self.connections:
            self._deserted.clear()
            await self._deserted.wait()

    def _sweep(self) -> None:
        now = monotonic()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        unread: dict[int, DownstreamConnection] = {}
        poll = select.poll()
        for connection in list(self.connections):
            connection.check_time(now)
            descriptor = connection.unread
            if descriptor is not None:
                unread[descriptor] = connection
                poll.register(descriptor, _GONE)
        if unread:
            for descriptor, seen in poll.poll(0):
                if seen & _GONE:
                    unread[descriptor].left_unseen()
        self.pool.sweep(now)
        self._memory.watch(len(self.connections))
