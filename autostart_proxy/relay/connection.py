"""What both ends of the relay share: when they are read, and how much is kept for them.

- A connection is read while nothing speaks against it; each reason is given and taken back by
  itself.
- It is read in turns with all others (`turns`), and goes on with what it has left for later before
  anything new is read.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from autostart_proxy.relay.turns import Turns

# Why a connection is not read; flags, since several reasons may hold at once. Plain numbers: the
# enum module's flags would cost a microsecond for every request.
HELD: Final = 1
UPSTREAM_FULL: Final = 2
CLIENT_FULL: Final = 4
PIPELINED: Final = 8
IN_TURN: Final = 16
BEHIND: Final = 32

WRITE_BUFFER_BYTES: Final = 256 * 1024
"""One read of the event loop: what a slow reader may cost before its sender has to wait."""


class Connection(asyncio.Protocol):
    """One end; `data_received` also takes b"", which means to go on with what was left for later.

    Attributes:
        pauses: why it is not read at present.
        write: takes bytes for the peer; an attribute, since it is called for every message.
    """

    __slots__ = ("_transport", "_turns", "pauses", "write")

    def __init__(self, turns: Turns) -> None:
        self._turns: Final = turns
        self.pauses = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def write_eof(self) -> None:
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def pause(self, why: int) -> None:
        """Do not read for this reason."""
        if not self.pauses and not self._transport.is_closing():
            self._transport.pause_reading()
        self.pauses |= why

    def resume(self, why: int) -> None:
        """Read again, unless another reason speaks against it."""
        if self.pauses & why:
            self.pauses &= ~why
            if not self.pauses and not self._transport.is_closing():
                self._transport.resume_reading()

    def read_while(self, possible: bool, otherwise: int) -> None:
        """Resume or pause, as the other end can take what is read here."""
        if possible:
            self.resume(otherwise)
        else:
            self.pause(otherwise)

    def read_in_bulk(self, size: int) -> None:
        """Note that so many bytes were read, and let others have their turn if that was a lot."""
        if not self._turns.take(size) and not self.pauses & IN_TURN:
            self.pause(IN_TURN)
            self._turns.wait(self._read_on)

    def _read_on(self) -> None:
        self.resume(IN_TURN)

    def fall_behind(self) -> None:
        """Leave the rest of what was read for a later turn, and read nothing before."""
        if not self.pauses & BEHIND:
            self.pause(BEHIND)
            self._turns.wait(self._catch_up)

    def _catch_up(self) -> None:
        if self.pauses & BEHIND and not self._transport.is_closing():
            self.pauses &= ~BEHIND
            self.data_received(b"")
            if not self.pauses:
                self._transport.resume_reading()

    def _catch_up_at_last(self) -> None:
        """Go on to the end of what was read: the peer is gone."""
        while self.pauses & BEHIND:
            self.pauses &= ~BEHIND
            self.data_received(b"")
