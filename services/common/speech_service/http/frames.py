"""A WebSocket that keeps little for a client: one message, in one piece, and no answers unread.

Uvicorn limits what a message may have in bytes, not in how many pieces it comes, and answers pings
whether or not the answers are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from asyncio import BaseTransport

    from uvicorn._types import ASGIReceiveEvent
    from websockets.frames import Frame

_MOST_LATE_BYTES = 1 << 20
"""What a client may still send behind a farewell: more than ten seconds of any audio."""


class FrugalWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket of uvicorn's that reads no further while its client does not."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin with no fragments."""
        self._message = bytearray()
        self._late_bytes = 0
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read what has come; not much of it once the client has been told to leave."""
        if self.close_sent:
            self._late_bytes += len(data)
            if self._late_bytes > _MOST_LATE_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def pause_writing(self) -> None:
        """Take no more from a client that leaves unread what it was sent."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on, unless a message is still to be taken by the application."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message, to a client that has taken what it was sent before."""
        await self.writable.wait()
        return await super().receive()

    def keepalive_timeout(self) -> None:
        """Cut off a client that is gone; it would not read a farewell either."""
        super().keepalive_timeout()
        self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        """Join a fragment to those before it: as many objects would take a hundred times more."""
        self._message += b"".join(self.frames) + event.data  # the first one has been left there
        self.frames = []
        if event.fin:
            self.frames, self._message = [bytes(self._message)], bytearray()
            self.send_receive_event_to_app()
