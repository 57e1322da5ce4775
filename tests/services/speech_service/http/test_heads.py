"""Connections on which no request begins, or none ends its head, beside those that are used."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from speech_service.app import create_app
from speech_service.contract.settings import Settings
from speech_service.http import heads
from speech_service.http.heads import PatientProtocol
from websockets.sync.client import connect

from ...harness import PLAIN_FAMILIES, FakeEngine, wait_until

SECONDS = 0.5


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where a service listens whose clients have half a second for a head."""
    monkeypatch.setattr(heads, "HEAD_SECONDS", SECONDS)
    app = create_app(FakeEngine(), Settings(), "test", PLAIN_FAMILIES)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, http=PatientProtocol, timeout_keep_alive=30)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    port = listener.getsockname()[1]
    try:
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200)
        yield port
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        yield client


def test_a_connection_on_which_nothing_begins_is_closed(port: int) -> None:
    with connected(port) as client:
        began = time.monotonic()
        assert client.recv(100) == b""
        assert SECONDS * 0.9 < time.monotonic() - began < 5


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_head_that_drips_is_given_up_also_after_a_whole_request(before: bytes, port: int) -> None:
    with connected(port) as client:
        client.sendall(before)
        if before:
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /health HTTP/1.1\r\nX: ")
        began = time.monotonic()
        client.settimeout(0.05)
        while time.monotonic() - began < 5:
            try:
                client.sendall(b"x")
                if client.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert SECONDS * 0.9 < time.monotonic() - began < 5


def test_what_is_used_stays_open_for_longer_than_a_head_may_take(port: int) -> None:
    with connected(port) as client:
        for _ in range(2):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(SECONDS * 1.5)
    with connect(f"ws://127.0.0.1:{port}/v1/realtime", proxy=None) as live:
        live.recv(timeout=10)
        time.sleep(SECONDS * 1.5)
        live.ping().wait(10)
