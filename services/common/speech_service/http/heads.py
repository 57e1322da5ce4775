"""A connection whose requests begin in time: a client that connects and dawdles is let go.

The server's own limits begin with the end of a head; without this one, a thousand connections that
never get there take the descriptors that everybody needs.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 30.0
"""From a connection, or from the first byte of a further request on it, to the end of its head."""


class PatientProtocol(HttpToolsProtocol):
    """A connection of uvicorn's that closes where a head does not end within `HEAD_SECONDS`."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._go_on()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to wait for the end of a head."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Go on to the body, which has limits of its own."""
        self._go_on()
        super().on_headers_complete()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
