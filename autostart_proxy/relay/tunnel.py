"""An upgraded connection: two streams of bytes, and nothing known of what they mean.

- Each direction ends by itself: its end is passed on, and the other flows until it ends too.
- Whoever sends is read only as fast as the other side reads.
- Once both directions have ended, or one connection is gone, the rest that is written still
  arrives, and the exchange that opened the tunnel is told.
"""

from __future__ import annotations

from collections.abc import Callable

from autostart_proxy import errors
from autostart_proxy.relay import patience
from autostart_proxy.relay.connection import CLIENT_FULL, HELD, UPSTREAM_FULL
from autostart_proxy.relay.patience import Due
from autostart_proxy.relay.peers import Client
from autostart_proxy.relay.upstream import UpstreamConnection


class Tunnel:
    """Takes the place of its exchange at both connections, from the 101 on.

    Args:
        closed: called once, at the end.

    Attributes:
        bytes_in, bytes_out: from and to the client, those of the handshake left out.
    """

    __slots__ = (
        "_client",
        "_client_ended",
        "_closed",
        "_to_client",
        "_to_upstream",
        "_upstream",
        "_upstream_ended",
        "bytes_in",
        "bytes_out",
    )

    interims = 0
    outlives_half_close = True
    takes_client_data = True

    def __init__(
        self, client: Client, upstream: UpstreamConnection, closed: Callable[[], None]
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._closed: Callable[[], None] | None = closed
        self._to_client = client.write
        self._to_upstream = upstream.write
        self._client_ended = self._upstream_ended = False
        self.bytes_in = self.bytes_out = 0

    def __repr__(self) -> str:
        return f"<Tunnel {self.bytes_in} bytes in, {self.bytes_out} out>"

    def begin(self, from_client: bytes, from_upstream: bytes) -> None:
        """Take both connections over, and pass on what came behind the heads."""
        self._upstream.exchange = self
        self._client.occupy(self)
        if from_upstream:
            self.upstream_data(from_upstream)
        if from_client:
            self.client_data(from_client)
        self._client.resume(HELD)

    def due(self) -> tuple[Due, float | None]:
        if self._client_ended or self._upstream_ended:
            # One direction is open still, as if its sender had not noticed the end of the other.
            return Due.END, patience.STALL_SECONDS
        return Due.NOTHING, None

    # From the client.

    def client_data(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self._to_upstream(data)

    def client_ended(self) -> bool:
        self._client_ended = True
        if self._upstream_ended:
            self.close()
            return False
        self._upstream.write_eof()
        return True

    def client_gone(self) -> None:
        self.close()

    def client_writable(self, writable: bool) -> None:
        self._upstream.read_while(writable, CLIENT_FULL)

    # From the connection to the service.

    def upstream_data(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self._to_client(data)

    def upstream_ended(self) -> bool:
        self._upstream_ended = True
        if self._client_ended:
            self.close()
            return False
        self._client.write_eof()
        return True

    def upstream_lost(self, clean: bool) -> None:
        self.close()

    def upstream_writable(self, writable: bool) -> None:
        self._client.read_while(writable, UPSTREAM_FULL)

    # Ends.

    def fail(self, error: errors.ProxyError) -> None:
        """End; no answer of the proxy's could be told from the peers' own bytes."""
        self.close()

    def close(self) -> None:
        """Let what is written arrive, and nothing more."""
        closed, self._closed = self._closed, None
        if closed is not None:
            self._upstream.close()
            closed()
