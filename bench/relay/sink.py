"""A service that reads a body and answers, or echoes a switched protocol."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


def serve(port: int) -> None:
    class Sink(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.left = -1

        def data_received(self, data: bytes) -> None:
            if self.left == -2:
                self.transport.write(data)
                return
            if self.left == -1:
                head, _, data = data.partition(b"\r\n\r\n")
                if b"upgrade: websocket" in head.lower():
                    self.left = -2
                    self.transport.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                        b"Upgrade: websocket\r\n\r\n"
                    )
                    return
                if head.startswith(b"GET "):  # whoever asks whether somebody is there
                    self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                    return
                self.left = int(head.lower().partition(b"content-length:")[2].split()[0])
            self.left -= len(data)
            if self.left == 0:
                self.left = -1
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Sink, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(run())


if __name__ == "__main__":
    serve(int(sys.argv[1]))
