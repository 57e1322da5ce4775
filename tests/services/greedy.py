"""Clients that ask for more memory than anybody should have: each a name and what it does.

What they send is refused sooner or later, or never ends; all have left when a call returns.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from speech_service.http.sockets import LONGEST_MESSAGE_BYTES
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from . import media

MB = 1 << 20
PATIENCE_SECONDS = 3.0
"""How long a client waits for a server that does not take what it sends."""

Greedy = Callable[[int], None]
"""Is told the port of a service on the loopback."""


def together(count: int, greedy: Greedy, port: int) -> None:
    """Do the same many times at once."""
    threads = [threading.Thread(target=greedy, args=(port,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection that does not mind being refused, cut off or left waiting."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
    with client, suppress(OSError):
        yield client


def sends(data: bytes, times: int = 1, before: bytes = b"", after: bytes = b"") -> Greedy:
    """A client that sends, and waits for the beginning of an answer."""

    def send(port: int) -> None:
        with connected(port) as client:
            client.sendall(before)
            piece = data * max(1, MB // len(data))
            for _ in range(max(1, len(data) * times // len(piece))):
                client.sendall(piece)
            client.sendall(after)
            client.recv(1000)

    return send


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


def body(path: str, kind: str) -> bytes:
    return head(path, "Transfer-Encoding: chunked", f"Content-Type: {kind}")


FORM = "multipart/form-data; boundary=b"
SPEECH = "/v1/audio/transcriptions"
DECLARED = head(SPEECH, f"Content-Type: {FORM}", "Content-Length: 400000000")


def part(name: str, data: bytes, more: str = "") -> bytes:
    disposition = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return disposition.encode() + data + b"\r\n"


def fields(name: str, port: int) -> None:
    """A form whose fields are large, and many."""
    with connected(port) as client:
        client.sendall(DECLARED)
        for number in range(190):
            client.sendall(part(name.format(number), b"x" * 1_000_000))
        client.recv(1000)


def voices(port: int) -> None:
    """A form with as much in it as a form may have, whose recording is awaited."""
    url = b"data:audio/wav;base64," + base64.b64encode(bytes(3_000_000))
    form = b"".join(part("known_speaker_references[]", url[: 3 * MB]) for _ in range(4))
    names = b"".join(part("known_speaker_names[]", b"%d" % number) for number in range(4))
    sound = part("file", media.tone(60.0), '; filename="a.wav"')
    whole = form + names + part("diarize", b"true") + sound + b"--b--\r\n"
    length = f"Content-Length: {len(whole)}"
    with connected(port) as client:
        client.sendall(head(SPEECH, f"Content-Type: {FORM}", length) + whole)
        client.recv(1000)


def unread(port: int) -> None:
    """Requests, as many as there is room for, none of whose answers is read."""
    with connected(port) as client:
        while True:
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000)


def opened(client: socket.socket, path: str) -> None:
    """Make a connection a WebSocket."""
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    client.recv(1000)


TEXT, BINARY, PING, GOES_ON = 1, 2, 9, 0


def frame(kind: int, data: bytes, last: bool = True) -> bytes:
    """A frame of a client (RFC 6455, section 5.2); its mask changes nothing."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8, "big")
    return bytes([kind | 0x80 * last]) + length + bytes(4) + data


GREETING = frame(TEXT, b'{"uid": "u", "model": "tiny"}')


def frames(path: str, data: bytes, times: int, before: bytes = b"") -> Greedy:
    """A WebSocket over which the same frames come again and again, and none is read."""

    def send(port: int) -> None:
        with connected(port) as client:
            opened(client, path)
            sends_on(client, data, times, before)

    return send


def sends_on(client: socket.socket, data: bytes, times: int, before: bytes) -> None:
    client.sendall(before)
    piece = data * max(1, MB // len(data))
    for _ in range(max(1, len(data) * times // len(piece))):
        client.sendall(piece)


def updates(port: int) -> None:
    """A session that is told what it does not know, again and again."""
    with suppress(WebSocketException, OSError, TimeoutError):
        url = f"ws://127.0.0.1:{port}/v1/realtime"
        with connect(url, proxy=None, max_size=None) as client:
            for number in range(130):
                stuff = {f"k{number}_{other}": "x" * 1000 for other in range(900)}
                known = {"audio": {"input": {"transcription": stuff | {"prompt": "p"}}}}
                client.send(json.dumps({"type": "session.update", "session": known | stuff}))
                client.recv(timeout=10)


def silent(port: int) -> None:
    """Sessions that greet, and those that do not, all of them silent."""
    with ExitStack() as held:
        for number in range(100):
            client = held.enter_context(connected(port))
            opened(client, ("/", "/v1/realtime", SPEECH)[number % 3])
            if number % 2:
                client.sendall(GREETING)


def unpacked(kind: str) -> bytes:
    """A small body that would be a hundred megabytes."""
    packer = zlib.compressobj(9, wbits=31 if kind == "gzip" else 15)
    packed = packer.compress(b'{"url": "') + packer.compress(b"a" * 100 * MB) + packer.flush()
    lines = f"Content-Encoding: {kind}", f"Content-Length: {len(packed)}"
    return head("/transcribe/url", "Content-Type: application/json", *lines) + packed


def nested(port: int) -> None:
    deep = b'{"a":' * 170_000
    length = f"Content-Length: {len(deep)}"
    sends(deep, before=head("/transcribe/url", "Content-Type: application/json", length))(port)
    frames("/v1/realtime", frame(TEXT, deep[:MB]), 3)(port)


NOISE = os.urandom(LONGEST_MESSAGE_BYTES)
IN_BASE64 = base64.b64encode(NOISE[: LONGEST_MESSAGE_BYTES // 4 * 3 - 100])
JSON = body("/transcribe/url", "application/json")
CHUNKED = body(SPEECH, FORM)

GREEDY: dict[str, Greedy] = {
    "a body of JSON": sends(b"100000\r\n" + b"a" * MB + b"\r\n", 150, JSON),
    "a body that nobody wants": sends(
        b"100000\r\n" + b"a" * MB + b"\r\n", 150, body("/api/ps/x", "application/json")
    ),
    "fields": partial(together, 4, partial(fields, "f{}")),
    "recordings of one name": partial(together, 4, partial(fields, "file")),
    "voices": partial(together, 20, partial(fields, "known_speaker_references[]")),
    "whole forms": partial(together, 40, voices),
    "parts without content": sends(part("a", b""), 1_000_000, DECLARED),
    "names without end": sends(
        b"a" * MB, 150, DECLARED + b"--b\r\nContent-Disposition: form-data;"
    ),
    "lines of a part without end": sends(b"X: y\r\n", 20_000_000, DECLARED + b"--b\r\n"),
    "no boundary": sends(b"\r\n--" + b"a" * MB, 150, DECLARED),
    "a long boundary": sends(
        b"a", before=head(SPEECH, f"Content-Type: {FORM}{'b' * 60_000}", "Content-Length: 99")
    ),
    "gzip": sends(unpacked("gzip")),
    "deflate": sends(unpacked("deflate")),
    "nested JSON": nested,
    "a line of a head without end": sends(b"a" * MB, 500, b"GET / HTTP/1.1\r\nX: "),
    "an address without end": sends(b"a" * MB, 500, b"GET /"),
    "lines of a head without end": sends(b"X: y\r\n", 50_000_000, b"GET / HTTP/1.1\r\n"),
    "extensions of a chunk": sends(b"a" * MB, 500, CHUNKED + b"1;"),
    "trailers": sends(b"X: y\r\n", 50_000_000, body("/health", "a/b") + b"0\r\n"),
    "a trailer": sends(b"a" * MB, 500, body("/health", "a/b") + b"0\r\nX: "),
    "requests without waiting": partial(together, 20, unread),
    "messages of the largest size": partial(
        together, 24, frames("/", frame(BINARY, NOISE), 10, GREETING)
    ),
    "messages before a greeting": partial(together, 24, frames("/", frame(BINARY, NOISE), 10)),
    "base64 of the largest size": partial(
        together,
        24,
        frames(
            "/v1/realtime",
            frame(
                TEXT,
                b'{"type": "input_audio_buffer.append", "audio": "%s"}' % IN_BASE64,
            ),
            10,
        ),
    ),
    "small messages": partial(together, 24, frames("/", frame(BINARY, b"a"), 3_000_000, GREETING)),
    "fragments": partial(
        together,
        8,
        frames("/", frame(GOES_ON, b"a", last=False), 1_000_000, frame(BINARY, b"a", last=False)),
    ),
    "fragments without content": frames(
        "/v1/realtime", frame(GOES_ON, b"", last=False), 3_000_000, frame(TEXT, b"", last=False)
    ),
    "pings": partial(together, 4, frames("/", frame(PING, b"a" * 125), 2_000_000, GREETING)),
    "pings of a speaker": partial(
        together,
        4,
        frames("/", frame(BINARY, b"a") + frame(PING, b"a" * 125) * 2000, 1000, GREETING),
    ),
    "updates": updates,
    "updates of many": partial(together, 12, updates),
    "sessions that are silent": silent,
}


def upload(data: bytes) -> Greedy:
    """A client that has a recording transcribed, and waits for it."""
    whole = part("file", data, '; filename="a.wav"') + b"--b--\r\n"
    length = f"Content-Length: {len(whole)}"

    def send(port: int) -> None:
        with connected(port) as client:
            client.settimeout(120)
            client.sendall(head(SPEECH, f"Content-Type: {FORM}", length))
            client.sendall(whole)
            client.recv(1000)

    return send
