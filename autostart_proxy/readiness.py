"""Finding out, to the millisecond, that a started service answers HTTP.

A TCP connect proves nothing: Docker's userland proxy accepts for a program that does not listen
yet, and then resets. So a probe is a request, answered with a head that the relay would take: it is
read by the same reader. Every attempt is fresh, and two clocks keep it fast without being a burden:

- After an attempt that failed, the next follows in a five-hundredth of the time already waited,
  2 to 50 ms: the delay added stays far below what the start itself took.
- An attempt without an answer is not given up, since a program may take seconds for its first
  page; further attempts are made beside it at growing distance, since it may also hang for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from autostart_proxy.backends import Upstream
from autostart_proxy.errors import BadUpstream
from autostart_proxy.wire.responses import ResponseReader

SHORTEST_SPACING_SECONDS = 0.002
LONGEST_SPACING_SECONDS = 0.05
SPACING_PER_SECOND_WAITED = 0.002

FIRST_HEDGE_SECONDS = 0.05
HEDGE_GROWTH = 3.0
MAX_ATTEMPTS_OPEN = 5


async def until_ready(
    upstream: Upstream, *, path: str, host: str, accepts: Callable[[int], bool]
) -> None:
    """Return as soon as the service answers `GET path` with a status that `accepts` takes.

    Never gives up by itself: the caller has the deadline. Cancellation closes all attempts.

    Args:
        upstream: where to ask.
        path: origin-form target, starting with a slash.
        host: value for the Host header.
        accepts: whether a final status (200 to 599) means ready.
    """
    head = (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\n"
        "User-Agent: autostart-proxy-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    ).encode("latin-1")
    loop = asyncio.get_running_loop()
    began = loop.time()
    hedge = FIRST_HEDGE_SECONDS
    attempts: list[_Attempt] = []
    try:
        while True:
            attempts.append(_Attempt(loop, upstream, head, accepts))
            answered = await _first_answer(attempts, hedge)
            if answered is True:
                return
            attempts = [each for each in attempts if not each.over.done()]
            if answered is None:  # silence: be patient with the oldest, drop the one after it
                hedge *= HEDGE_GROWTH
                if len(attempts) == MAX_ATTEMPTS_OPEN:
                    attempts.pop(1).close()
                continue
            waited = loop.time() - began
            await asyncio.sleep(
                min(
                    LONGEST_SPACING_SECONDS,
                    max(SHORTEST_SPACING_SECONDS, waited * SPACING_PER_SECOND_WAITED),
                )
            )
    finally:
        for attempt in attempts:
            attempt.close()


async def _first_answer(attempts: list[_Attempt], limit_seconds: float) -> bool | None:
    """True if an attempt found the service ready, False if one failed, None for silence."""
    done, _ = await asyncio.wait(
        [attempt.over for attempt in attempts],
        timeout=limit_seconds,
        return_when=asyncio.FIRST_COMPLETED,
    )
    if not done:
        return None
    return any(future.result() for future in done)


class _Attempt(asyncio.Protocol):
    """One request on one fresh connection; `over` tells whether it found the service ready."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        upstream: Upstream,
        head: bytes,
        accepts: Callable[[int], bool],
    ) -> None:
        self.over: asyncio.Future[bool] = loop.create_future()
        self._head = head
        self._accepts = accepts
        self._received = b""
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self._connecting = loop.create_task(self._connect(loop, upstream))

    async def _connect(self, loop: asyncio.AbstractEventLoop, upstream: Upstream) -> None:
        try:
            await loop.create_connection(lambda: self, upstream.host, upstream.port)
        except OSError:
            self._finish(False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        data = self._received + data
        at = 0
        try:
            while found := self._reader.read(data, at):
                response, at = found
                if not response.is_interim:
                    switched = response.status == 101  # without being asked
                    self._finish(not switched and self._accepts(response.status))
                    return
        except BadUpstream:
            self._finish(False)
        self._received = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(False)

    def close(self) -> None:
        """End the attempt, whether it is still connecting or waiting for an answer."""
        self._connecting.cancel()
        self._finish(False)

    def _finish(self, ready: bool) -> None:
        if not self.over.done():
            self.over.set_result(ready)
        if self._transport is not None:
            self._transport.abort()
