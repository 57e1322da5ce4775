"""Where the socket of the running proxy is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autostart_proxy.control import client, sockets


def test_the_socket_stands_where_its_user_may_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = {"RUNTIME_DIRECTORY": f"{tmp_path}/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/0"}
    assert sockets.own_socket(systemd) == tmp_path / "a" / "control.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert sockets.own_socket({}) == Path("/run/autostart-proxy/control.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    session = {"XDG_RUNTIME_DIR": str(tmp_path)}
    own = tmp_path / "autostart-proxy" / "control.sock"
    assert sockets.own_socket(session) == own
    assert sockets.own_socket({}) == Path("/tmp/autostart-proxy-1000/control.sock")
    # Who runs no proxy of their own asks the system's.
    assert client.socket_to_ask(session) == sockets.SYSTEM_SOCKET
    own.parent.mkdir()
    own.touch()
    assert client.socket_to_ask(session) == own
