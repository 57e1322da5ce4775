"""What a client may leave with a WebSocket, and in how many pieces."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from speech_service.http.frames import FrugalWebSocket
from websockets.sync.client import connect

from ...greedy import GOES_ON, PING, TEXT, frame, opened
from ...harness import serve, wait_until

UNKNOWN = b'{"type": "unknown", "event_id": "mine"}'


class Watched(FrugalWebSocket):
    """Notes what waits to be read by its clients, and in how many pieces a message is kept."""

    unread = 0
    pieces = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        Watched.unread = max(Watched.unread, self.transport.get_write_buffer_size())
        Watched.pieces = max(Watched.pieces, len(self.frames))


@pytest.fixture
def port() -> Iterator[int]:
    Watched.unread = Watched.pieces = 0
    options = {"ws": Watched, "ws_ping_interval": 1, "ws_ping_timeout": 1}
    with serve(server_options=options) as http:
        yield http.base_url.port or 0


@contextmanager
def live(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        opened(client, "/v1/realtime")
        yield client


def told(client: socket.socket) -> dict[str, Any]:
    """The first message in which the client's own event is named."""
    heard = b""
    while b'"mine"' not in heard or not heard.endswith(b"}"):
        heard += client.recv(10_000)
    found: dict[str, Any] = json.loads(heard[heard.rindex(b'{"event_id"') :])
    return found


def test_a_message_may_come_in_many_pieces_and_is_kept_in_one(port: int) -> None:
    with live(port) as client:
        first, *middle, last = (UNKNOWN[place : place + 1] for place in range(len(UNKNOWN)))
        client.sendall(frame(TEXT, first, last=False))
        empty = frame(GOES_ON, b"", last=False)
        client.sendall(empty * 10_000)
        client.sendall(b"".join(frame(GOES_ON, piece, last=False) for piece in middle))
        client.sendall(frame(PING, b"between"))
        client.sendall(frame(GOES_ON, last))
        assert told(client)["error"]["param"] == "type"
        client.sendall(frame(TEXT, UNKNOWN))
        assert told(client)["error"]["param"] == "type"
    assert Watched.pieces <= 1


def test_who_reads_no_answers_to_his_pings_is_read_no_further_and_cut_off(port: int) -> None:
    with live(port) as client:
        client.settimeout(0.5)
        with pytest.raises(OSError):
            for _ in range(1000):
                client.sendall(frame(PING, b"a" * 125) * 1000)
        assert 0 < Watched.unread < 2_000_000
        health = f"http://127.0.0.1:{port}/metrics"
        wait_until(lambda: "speech_live_sessions 0.0" in httpx.get(health).text, 10)


def test_who_reads_his_answers_later_gets_all_of_them(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/v1/realtime", proxy=None) as client:
        pongs = [client.ping(b"%d" % number) for number in range(200)]
        time.sleep(0.2)
        client.send(UNKNOWN.decode())
        assert all(pong.wait(10) for pong in pongs)


def test_who_sends_on_behind_a_farewell_is_cut_off(port: int) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        opened(client, "/")
        client.sendall(frame(TEXT, b'{"uid": "%s"}' % (b"u" * 2000)))
        assert b"up to 1000 characters" in client.recv(10_000)
        with pytest.raises(OSError):
            while sent < 100_000_000:
                client.sendall(frame(TEXT, b"a" * 100_000))
                sent += 100_000
    assert 1_000_000 < sent < 50_000_000
