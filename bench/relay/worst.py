"""Those who do their worst: clients that flood a proxy, and a service that floods it behind them.

`python -m bench.relay.worst PORT` is the service; with HOST, CASE and COUNT behind the port of the
proxy it is the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import sys
from dataclasses import dataclass

import uvloop

from bench.relay.proxies import HOST

BLOCK_BYTES = 256 * 1024
SLOW_READERS = 300
UNREAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Case:
    """What a connection sends first, and then again and again, and whether it reads."""

    name: str
    first: str
    again: bytes = b""
    connections: tuple[int, ...] = (1, 20)
    reads: bool = True


def repeated(piece: bytes) -> bytes:
    """So much of it that a write costs the sender little."""
    return piece * (BLOCK_BYTES // len(piece) + 1)


CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
UPLOAD = "POST /sink HTTP/1.1\r\nHost: {host}\r\n" + CHUNKED
FIELDS = b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(150))
NOBODY = b"GET /index.html HTTP/1.1\r\nHost: x\r\n"
GOOD = f"GET /index.html HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
QUESTION = GOOD.replace(b"/index.html", b"/.well-known/autostart-proxy/waiting")


def unlike_others(number: int) -> bytes:
    """A request for nobody that resembles none before it."""
    return NOBODY + FIELDS.replace(b"X", b"X%d" % number) + b"\r\n"


def ask(path: str) -> str:
    return f"GET /sink/{path} HTTP/1.1\r\nHost: {{host}}\r\n\r\n"


CASES = [
    Case("requests for nobody", "", repeated(NOBODY + b"\r\n")),
    Case("large requests for nobody", "", repeated(NOBODY + FIELDS + b"\r\n")),
    Case("requests with new fields each", "", repeated(b"".join(map(unlike_others, range(70))))),
    Case("questions of waiting pages", "", repeated(QUESTION)),
    Case("good requests", "", repeated(GOOD)),
    Case("empty lines", "", repeated(b"\r\n")),
    Case("upload in chunks of 1", UPLOAD, repeated(b"1\r\na\r\n")),
    Case("upload in chunks of 16", UPLOAD, repeated(b"10\r\n0123456789abcdef\r\n")),
    Case("upload in chunks with extensions", UPLOAD, repeated(b"1 ;a=b\r\na\r\n")),
    Case("upload at full speed", UPLOAD, repeated(b"10000\r\n%b\r\n" % (b"x" * 65536))),
    Case("answer in chunks of 1", ask("chunks/1")),
    Case("answer in chunks of 16", ask("chunks/16")),
    Case("answer in chunks of 64", ask("chunks/64")),
    Case("answer at full speed", ask("chunks/65536")),
    Case("interim answers", ask("interims")),
    Case("slow readers", ask("chunks/65536"), connections=(SLOW_READERS,), reads=False),
]


def serve(port: int) -> None:
    """Answer `/sink/chunks/SIZE` or `/sink/interims` without end, and read what is posted."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            method, path, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
            while method == "POST" and await reader.read(BLOCK_BYTES):
                pass
            match path.split("/"):
                case ["", "sink", "chunks", size]:
                    piece = b"%x\r\n%b\r\n" % (int(size), b"x" * int(size))
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                case ["", "sink", "interims"]:
                    piece = b"HTTP/1.1 103 Early Hints\r\n\r\n"
                case _:  # whoever asks whether somebody is there
                    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                    piece = b""
            block = repeated(piece) if piece else b""
            while block:
                writer.write(block)
                await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(run())


class Flood:
    """Connections that do a case for ever; one that is refused is replaced by another."""

    def __init__(self, port: int, host: str, case: Case) -> None:
        self._port = port
        self._case = case
        self._first = case.first.format(host=host).encode()
        self._selector = selectors.DefaultSelector()
        self._unsent: dict[socket.socket, memoryview] = {}

    def run(self, count: int) -> None:
        for _ in range(count):
            self._connect()
        while True:
            for key, events in self._selector.select():
                line = key.fileobj
                assert isinstance(line, socket.socket)
                try:
                    if events & selectors.EVENT_READ and not line.recv(BLOCK_BYTES):
                        raise ConnectionError
                    if events & selectors.EVENT_WRITE:
                        self._send(line)
                except BlockingIOError:
                    pass
                except OSError:
                    self._selector.unregister(line)
                    del self._unsent[line]
                    line.close()
                    self._connect()

    def _connect(self) -> None:
        line = socket.socket()
        if not self._case.reads:  # as far away, the kernel takes little
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
        line.connect(("127.0.0.1", self._port))
        line.setblocking(False)
        self._unsent[line] = memoryview(self._first or self._case.again)
        reads = selectors.EVENT_READ if self._case.reads else 0
        self._selector.register(line, reads | selectors.EVENT_WRITE)

    def _send(self, line: socket.socket) -> None:
        unsent = self._unsent[line]
        unsent = unsent[line.send(unsent) :] or memoryview(self._case.again)
        self._unsent[line] = unsent
        if not unsent:
            self._selector.unregister(line)
            if self._case.reads:
                self._selector.register(line, selectors.EVENT_READ)


if __name__ == "__main__":
    service_port, *flood = sys.argv[1:]
    if not flood:
        serve(int(service_port))
    else:
        [case] = [each for each in CASES if each.name == flood[1]]
        Flood(int(service_port), flood[0], case).run(int(flood[2]))
