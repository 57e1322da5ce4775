"""Who listens on a port, asked of the real system."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from autostart_proxy.backends.listeners import Listener, listeners, taken


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(opened: ExitStack, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    server.listen()


@pytest.mark.parametrize(
    ("bound", "asked", "reached"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),  # noqa: S104 - what is tried
        ("::", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::", "::1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("::1", "127.0.0.1", False),
    ],
)
def test_a_port_is_taken_by_whom_connections_reach(
    opened: ExitStack, port: int, bound: str, asked: str, reached: bool
) -> None:
    listen(opened, bound, port)
    assert taken(asked, port) is reached
    who = listeners(asked, port)
    assert [each.pid for each in who] == ([os.getpid()] if reached else [])


def test_nobody_has_a_free_port(port: int) -> None:
    assert not taken("127.0.0.1", port)
    assert listeners("127.0.0.1", port) == []


def test_what_is_left_of_a_connection_does_not_take_its_port(port: int) -> None:
    with ExitStack() as opened:
        listen(opened, "127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            pass
    assert not taken("127.0.0.1", port)


def test_an_address_of_another_machine_counts_as_free(port: int) -> None:
    assert not taken("192.0.2.1", port)


def test_a_name_stands_for_its_addresses(opened: ExitStack, port: int) -> None:
    listen(opened, "127.0.0.1", port)
    assert [each.pid for each in listeners("localhost", port)] == [os.getpid()]


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_of_another_machine_nobody_is_known(opened: ExitStack, port: int, host: str) -> None:
    listen(opened, "0.0.0.0", port)  # noqa: S104 - what is tried
    assert listeners(host, port) == []


def test_a_socket_that_does_not_listen_is_nobody(opened: ExitStack, port: int) -> None:
    bound = opened.enter_context(socket.socket())
    bound.bind(("127.0.0.1", port))
    assert listeners("127.0.0.1", port) == []


def test_a_listener_outside_of_containers_has_none(opened: ExitStack, port: int) -> None:
    listen(opened, "127.0.0.1", port)
    [found] = listeners("127.0.0.1", port)
    assert found.container == ""
    assert found.name


def test_a_listener_is_told_as_far_as_it_is_known() -> None:
    assert str(Listener(12, "nc")) == "process 12 (nc)"
    assert str(Listener(12)) == "process 12"
    assert str(Listener(None)) == "a process of another user"
