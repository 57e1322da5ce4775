"""The runner's side: carries out what the proxy orders, as a user who may do nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress

from autostart_proxy.backends.process import ProcessBackend
from autostart_proxy.backends.runner.messages import (
    ORDER_LIMIT_BYTES,
    Cancel,
    Changed,
    Made,
    News,
    Nonsense,
    Order,
    Orders,
    Outcome,
    line,
    read_made,
    read_order,
    refusal,
)
from autostart_proxy.errors import BackendRefused

_log = logging.getLogger(__name__)


class Runner:
    """Serves every proxy that may connect; who may, says the socket's mode."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, listener: socket.socket) -> None:
        """Accept proxies on a bound unix socket, which is closed with the runner."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=ORDER_LIMIT_BYTES
        )

    async def close(self) -> None:
        """Stop accepting, and end every service."""
        if self._server is not None:
            self._server.close()
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        try:
            made = read_made(await reader.readline())
            await _Service(made, reader, writer).serve()
        except (Nonsense, ValueError) as error:  # ValueError: a line that is too long
            _not_understood(error)
        except asyncio.CancelledError:
            pass  # by `close`; nobody else has this task
        finally:
            writer.close()


def _not_understood(error: Exception) -> None:
    _log.warning("not understood, so hung up", extra={"reason": str(error)})


class _Service:
    """One service of the proxy's, for as long as it holds the connection."""

    def __init__(
        self, made: Made, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._backend = ProcessBackend(made.unit, made.host, made.grace_seconds)
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Carry out orders until the proxy hangs up; then end the service."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watcher = tasks.create_task(self._watch())
                try:
                    async for sent in self._reader:
                        self._take(read_order(sent), tasks)
                except (Nonsense, ValueError) as error:
                    _not_understood(error)
                except ConnectionError:
                    pass  # hung up roughly
                finally:
                    for each in (watcher, *self._calls.values()):
                        each.cancel()
        finally:
            await self._backend.close()

    def _take(self, order: Orders, tasks: asyncio.TaskGroup) -> None:
        match order:
            case Order():
                call = tasks.create_task(self._carry_out(order))
                self._calls[order.call] = call
                call.add_done_callback(lambda _: self._calls.pop(order.call, None))
            case Cancel(cancel=number):
                with suppress(KeyError):
                    self._calls[number].cancel()

    async def _carry_out(self, order: Order) -> None:
        try:
            self._say(await self._outcome(order))
        except BackendRefused as error:
            self._say(Outcome(order.call, refusal=refusal(error.reason)))
        except asyncio.CancelledError:
            self._say(Outcome(order.call))
            raise

    async def _outcome(self, order: Order) -> Outcome:
        backend = self._backend
        match order.verb:
            case "start":
                launched = Outcome(order.call, launched=True)
                upstream = await backend.start(lambda: self._say(launched))
                return Outcome(order.call, upstream=upstream)
            case "verify":
                await backend.verify()
                return Outcome(order.call)
            case "stop":
                return Outcome(order.call, exits=await backend.stop(order.grace_seconds))
            case "observe":
                return Outcome(order.call, seen=await backend.observe())
            case "log_tail":
                return Outcome(order.call, lines=await backend.log_tail())

    async def _watch(self) -> None:
        async for _ in self._backend.watch():
            self._say(Changed(changed=True))

    def _say(self, news: News) -> None:
        if not self._writer.is_closing():
            self._writer.write(line(news))
