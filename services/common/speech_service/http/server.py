"""Runs a speech service under uvicorn: binds first, ends cleanly on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from ..contract.engine import WORKER_THREADS
from ..contract.settings import BadSettings, S, read_environment
from ..process import logs
from .frames import FrugalWebSocket
from .heads import PatientProtocol
from .sockets import LONGEST_MESSAGE_BYTES

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server that may listen on several ports, and exits with 0 after a SIGTERM.

    Uvicorn raises the signal again once it has shut down, so that a supervisor sees a kill; here
    an orderly end is the expected one.

    Args:
        config: of uvicorn; its port is the first one.
        ports: further ones, on the same addresses.
    """

    def __init__(self, config: uvicorn.Config, ports: Collection[int] = ()) -> None:
        super().__init__(config)
        self._ports = ports

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open all ports; a further one that is taken ends the program as the first does."""
        await super().startup(sockets)
        log.info("listening", extra={"host": self.config.host, "port": self.config.port})
        for port in self._ports:
            try:
                self.servers.append(
                    await asyncio.get_running_loop().create_server(
                        self._protocol, self.config.host, port, backlog=self.config.backlog
                    )
                )
            except OSError as error:
                log.error("%s", error)
                await self.lifespan.shutdown()
                sys.exit(1)
            log.info("also listening", extra={"port": port})

    def _protocol(self) -> asyncio.Protocol:
        """Return what serves one connection, as uvicorn makes it for its own port."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        originals = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in originals.items():
                signal.signal(number, handler)


def main(kind: type[S], create: Callable[[S], ASGIApp]) -> int:
    """Serve until told to stop; return the exit status (2: the settings are unusable).

    Args:
        kind: the engine's settings.
        create: makes the application from them; must not import anything heavy.
    """
    try:
        settings = read_environment(kind)
    except BadSettings as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    config = uvicorn.Config(
        create(settings),
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        http=PatientProtocol,
        ws=FrugalWebSocket,
        ws_max_size=LONGEST_MESSAGE_BYTES,
        # Audio does not get smaller by it, and a few bytes would become megabytes.
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = Server(config, settings.older_ports - {settings.port})
    server.run()
    status = 0 if server.started else 1
    if any(thread.name.startswith(WORKER_THREADS) for thread in threading.enumerate()):
        # A decoder cannot be interrupted, and the interpreter would wait for it. Its client has
        # been told already.
        logging.shutdown()
        os._exit(status)
    return status
