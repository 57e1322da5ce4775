"""The service in the containers: echoes, digests, streams and tunnels, when the test lets it.

    python program.py FOLDER PORT

It needs nothing but the standard library. What it waits for are files that the test creates in
FOLDER: it listens once there is `listen`, obeys SIGTERM once there is `end`, completes `/report`
once there is `report`, and exits with the number in `exit` if that comes before `listen`.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import signal
import struct
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

LIFE = uuid.uuid4().hex
"""Another one after every start."""

CHUNK_BYTES = 1024 * 1024
WEBSOCKET_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ".")


def until_allowed(what: str) -> None:
    while not (FOLDER / what).exists():
        if what == "listen" and (FOLDER / "exit").exists():
            print("cannot find my settings", flush=True)
            os._exit(int((FOLDER / "exit").read_text()))
        time.sleep(0.005)


def end(*_: object) -> None:
    print("asked to end", flush=True)
    until_allowed("end")
    os._exit(0)


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        match self.path.split("?")[0]:
            case "/headers":
                self.answer(json.dumps(self.headers.items()).encode())
            case "/events":
                self.events()
            case "/report":
                self.report()
            case "/socket":
                self.tunnel()
            case _:
                self.answer(LIFE.encode())

    def do_POST(self) -> None:
        match self.path:
            case "/digest":
                digest, size = hashlib.sha256(), 0
                for chunk in self.body():
                    digest.update(chunk)
                    size += len(chunk)
                self.answer(f"{digest.hexdigest()} {size}".encode())
            case _:
                self.answer(b"".join(self.body()))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Life", LIFE)
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> Iterator[bytes]:
        left = int(self.headers["Content-Length"])
        while left:
            chunk = self.rfile.read1(min(left, CHUNK_BYTES))
            if not chunk:
                raise ConnectionError("the body is cut short")
            left -= len(chunk)
            yield chunk

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def stream(self, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Life", LIFE)
        self.end_headers()

    def events(self) -> None:
        """`/events?COUNT,SECONDS`: events that say when they were sent."""
        count, spacing = self.path.partition("?")[2].split(",")
        self.stream("text/event-stream")
        for number in range(int(count)):
            if number:
                time.sleep(float(spacing))
            # Every process of a machine reads the same CLOCK_MONOTONIC.
            self.chunk(f"id: {number}\ndata: {time.monotonic()}\n\n".encode())
        self.chunk(b"")

    def report(self) -> None:
        self.stream("text/plain")
        self.chunk(b"begun\n")
        until_allowed("report")
        self.chunk(b"done\n")
        self.chunk(b"")

    def tunnel(self) -> None:
        """Echo WebSocket messages; of the subprotocols offered, choose the last."""
        proof = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + WEBSOCKET_KEY).digest()
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(proof).decode())
        if offered := self.headers["Sec-WebSocket-Protocol"]:
            self.send_header("Sec-WebSocket-Protocol", offered.split(",")[-1].strip())
        self.end_headers()
        self.close_connection = True
        while True:
            kind, payload = self.frame()
            self.wfile.write(bytes([0x80 | kind]) + length_of(payload) + payload)
            if kind == 8:
                return

    def frame(self) -> tuple[int, bytes]:
        """Read a message in one frame (RFC 6455, section 5.2)."""
        first, second = self.rfile.read(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self.rfile.read(2 if length == 126 else 8), "big")
        mask = self.rfile.read(4)
        masked = int.from_bytes(self.rfile.read(length), "big")
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        return first & 0x0F, (masked ^ key).to_bytes(length, "big")

    def log_message(self, format: str, *args: object) -> None:
        pass


def length_of(payload: bytes) -> bytes:
    """A frame's length in as few bytes as possible, without a mask."""
    length = len(payload)
    if length < 126:
        return bytes([length])
    return struct.pack(">BH", 126, length) if length < 65536 else struct.pack(">BQ", 127, length)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    print("waiting until it may listen", flush=True)
    until_allowed("listen")
    Server(("0.0.0.0", int(sys.argv[2])), Answer).serve_forever()
