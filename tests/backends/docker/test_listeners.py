"""Who listens on a port of this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from autostart_proxy.backends.docker.listeners import Listener, listeners
from tests.ports import free_port

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_listener_is_found_by_host_and_port(address: str, host: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        found = listeners(host, server.getsockname()[1])
    assert [each.pid for each in found] == [os.getpid()]
    assert found[0].program in str(found[0]) and str(os.getpid()) in str(found[0])


def test_nobody_is_found_where_nobody_listens() -> None:
    assert listeners("127.0.0.1", free_port()) == []
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listeners("127.0.0.1", bound.getsockname()[1]) == [], "bound is not listening"


def test_an_address_beside_it_is_not_meant() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert listeners("127.0.0.2", server.getsockname()[1]) == []


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_of_another_machine_nothing_is_known(host: str) -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        assert listeners(host, server.getsockname()[1]) == []


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine with a listener on 127.0.0.1:8001, in a container."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid inode\n"
        "   0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 77\n"
        "   1: 0100007F:1F41 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0 0 78\n"
    )
    process = tmp_path / "42"
    (process / "fd").mkdir(parents=True)
    (process / "fd" / "3").symlink_to("socket:[77]")
    (process / "comm").write_text("nginx\n")
    (process / "cgroup").write_text(f"0::/system.slice/docker-{ID}.scope\n")
    other = tmp_path / "43"
    (other / "fd").mkdir(parents=True)
    (other / "fd" / "4").symlink_to("socket:[78]")
    return tmp_path


def test_the_container_of_a_listener_is_known(proc: Path) -> None:
    assert listeners("127.0.0.1", 8001, proc) == [Listener(42, "nginx", ID)]


def test_a_listener_without_a_container_has_none(proc: Path) -> None:
    (proc / "42" / "cgroup").write_text("0::/user.slice\n")
    assert listeners("127.0.0.1", 8001, proc) == [Listener(42, "nginx", "")]


def test_what_may_not_be_seen_is_not_known(proc: Path) -> None:
    (proc / "42" / "comm").unlink()
    assert listeners("127.0.0.1", 8001, proc) == [Listener(42, "a program", "")]
    (proc / "42" / "fd" / "3").unlink()
    (proc / "42" / "fd").rmdir()
    assert listeners("127.0.0.1", 8001, proc) == []
    (proc / "net" / "tcp").unlink()
    assert listeners("127.0.0.1", 8001, proc) == []
