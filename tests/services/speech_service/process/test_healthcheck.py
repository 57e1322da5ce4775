"""The check that Docker makes for as long as a container lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from speech_service.process.healthcheck import healthy

from tests.ports import free_port


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers each connection with some bytes: its port and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(1024))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], asked
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nOK", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_a_200_is_healthy(answer: bytes, expected: bool) -> None:
    with answering(answer) as (port, asked):
        assert healthy(port) == expected
    assert asked[0].startswith(b"GET /health HTTP/1.0\r\n")


def test_nobody_there_is_not_healthy() -> None:
    assert not healthy(free_port())


def test_who_does_not_answer_in_time_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not healthy(silent.getsockname()[1], timeout=0.05)


@pytest.mark.parametrize(("answer", "status"), [(b"HTTP/1.1 200 OK\r\n\r\n", 0), (b"", 1)])
def test_the_exit_status_is_the_verdict(answer: bytes, status: int) -> None:
    with answering(answer) as (port, _):
        command = [sys.executable, "-m", "speech_service.process.healthcheck"]
        ended = subprocess.run(command, env=os.environ | {"UVICORN_PORT": str(port)}, timeout=30)
    assert ended.returncode == status
