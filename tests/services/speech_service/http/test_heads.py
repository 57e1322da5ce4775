"""Connections on which no request begins, or none ends its head, beside those that are used."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from speech_service.http import heads
from speech_service.http.heads import PatientProtocol
from websockets.sync.client import connect

from ...harness import serve, wait_until

SECONDS = 0.5


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where a service listens whose clients have half a second for a head."""
    monkeypatch.setattr(heads, "HEAD_SECONDS", SECONDS)
    options = {"http": PatientProtocol, "timeout_keep_alive": 30}
    with serve(server_options=options) as http:
        yield http.base_url.port or 0


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


CHUNKED = b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"GET /", b"a"),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        (CHUNKED + b"1;", b"a"),
        (CHUNKED + b"0\r\nX: ", b"a"),
    ],
    ids=["line", "address", "lines", "extension", "trailer"],
)
def test_what_has_no_end_is_refused(begins: bytes, goes_on: bytes, port: int) -> None:
    with connected(port) as client:
        try:
            client.sendall(begins)
            for _ in range(100):
                client.sendall(goes_on * 100_000)
        except OSError:
            return
        heard = answers(client)
        assert heard == b"" or b"HTTP/1.1 400" in heard or b"HTTP/1.1 405" in heard


@pytest.mark.parametrize("size", [1000, heads.HEAD_BYTES - 1000])
def test_a_head_of_some_length_is_served(size: int, port: int) -> None:
    with connected(port) as client:
        field = b"X: " + b"a" * size + b"\r\n"
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_many_fields_have_the_same_end_as_a_long_one(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 40_000)
        assert client.recv(1000).startswith(b"HTTP/1.1 400")


def answers(client: socket.socket) -> bytes:
    """All that comes until the other side ends or resets the connection."""
    heard = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(10_000):
            heard += piece
    return heard


def test_some_requests_may_wait_and_no_more(port: int) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(port) as client:
        client.sendall(request * 10)
        heard = b""
        while heard.count(b"HTTP/1.1 200") < 10:
            heard += client.recv(10_000)
    with connected(port) as client:
        client.sendall(request * 5000)
        assert answers(client).count(b"HTTP/1.1 200") < 100


def test_who_reads_no_answer_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Exception | None] = []
    monkeypatch.setattr(heads, "UNREAD_SECONDS", 0.3)
    ended = PatientProtocol.connection_lost

    def noted(connection: PatientProtocol, error: Exception | None) -> None:
        lost.append(error)
        ended(connection, error)

    monkeypatch.setattr(PatientProtocol, "connection_lost", noted)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
        wait_until(lambda: any(isinstance(error, TimeoutError) for error in lost), 10)
