"""Asking the running proxy, and what an operator is told where that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autostart_proxy.control import client, sockets
from autostart_proxy.control.client import ask
from autostart_proxy.control.sockets import ControlError
from autostart_proxy.unix_socket import bind

STATUS = {"command": "status"}


@contextmanager
def proxy_that_says(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Somebody who takes one question and says this, whatever it was."""
    asked: list[bytes] = []
    with bind(path) as listener:
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                asked.append(lines.readline())
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(10)


def test_a_question_is_one_line_and_so_is_its_answer(tmp_path: Path) -> None:
    with proxy_that_says(tmp_path / "s", b'{"ok": true, "services": []}\n') as asked:
        assert ask(tmp_path / "s", STATUS) == {"ok": True, "services": []}
    assert [json.loads(line) for line in asked] == [STATUS]


def test_no_is_told_in_the_proxys_words(tmp_path: Path) -> None:
    answer = b'{"ok": false, "error": "overtaken", "message": "somebody else"}\n'
    with proxy_that_says(tmp_path / "s", answer), pytest.raises(ControlError, match="^somebody"):
        ask(tmp_path / "s", STATUS)


def test_a_proxy_that_hangs_up_was_most_likely_stopped(tmp_path: Path) -> None:
    with proxy_that_says(tmp_path / "s", b""), pytest.raises(ControlError, match="hung up"):
        ask(tmp_path / "s", STATUS)


@pytest.mark.parametrize(
    "said", [b"x\n", b"{}\n", b"[]\n", b"3\n", b'{"ok": false}\n', b"[" * 50_000 + b"\n", b"\xff\n"]
)
def test_what_is_no_proxy_is_told_as_such(tmp_path: Path, said: bytes) -> None:
    with (
        proxy_that_says(tmp_path / "s", said),
        pytest.raises(ControlError, match="is no autostart-proxy$"),
    ):
        ask(tmp_path / "s", STATUS)


def test_where_no_proxy_runs_its_socket_is_named(tmp_path: Path) -> None:
    bind(tmp_path / "dead").close()
    for path in (tmp_path / "dead", tmp_path / "none"):
        with pytest.raises(ControlError, match=f"no proxy answers at {path}"):
            ask(path, STATUS)


def test_what_is_no_socket_at_all_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="too long"):
        ask(tmp_path / ("x" * 200), STATUS)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
STRANGER = 65533


def let_everybody_through(path: Path) -> None:
    for folder in (path, *list(path.parents)[:4]):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(0o711)


@contextmanager
def strangers_proxy(path: Path) -> Iterator[list[bytes]]:
    """Another user's program, which anybody may ask; what it was asked is there at the end."""
    program = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
os.umask(0)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    listener.settimeout(30)
    print(flush=True)
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        said = lines.readline()
        print(said)
        if said:
            connection.sendall(b'{"ok": true, "services": []}\\n')
"""
    asked: list[bytes] = []
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(STRANGER)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield asked
        # It ends by itself once somebody has connected and hung up.
        asked += [line for line in process.stdout if line.strip() != b"b''"]


@as_root
@pytest.mark.parametrize("given_away", ["nothing", "folder", "folder and socket"])
def test_a_stranger_is_told_nothing_and_not_believed(tmp_path: Path, given_away: str) -> None:
    """However it looks from outside: the kernel knows who listens."""
    let_everybody_through(tmp_path)
    folder = tmp_path / "autostart-proxy-1000"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    path = folder / "control.sock"
    with strangers_proxy(path) as asked:
        if "folder" in given_away:
            os.chown(folder, 0, 0)
        if "socket" in given_away:
            os.chown(path, 0, 0)
        with pytest.raises(ControlError, match=f"belongs to user {STRANGER}, who is neither you"):
            ask(path, STATUS)
    assert asked == []


@as_root
def test_a_strangers_folder_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "autostart-proxy"
    folder.mkdir()
    bind(folder / "control.sock").close()
    session = {"XDG_RUNTIME_DIR": str(tmp_path)}
    os.seteuid(STRANGER)  # who asks; the folder is root's, then somebody's
    try:
        let_through = client.socket_to_ask(session)
    finally:
        os.seteuid(0)
    assert let_through == sockets.SYSTEM_SOCKET, "a folder that cannot be looked at"
    let_everybody_through(tmp_path)
    os.chown(folder, STRANGER + 1, STRANGER + 1)
    os.seteuid(STRANGER)
    try:
        assert client.socket_to_ask(session) == sockets.SYSTEM_SOCKET
    finally:
        os.seteuid(0)


@as_root
def test_the_user_of_the_systems_proxy_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_everybody_through(tmp_path)
    folder = tmp_path / "autostart-proxy"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    path = folder / "control.sock"
    monkeypatch.setattr(client, "SYSTEM_SOCKET", path)
    with strangers_proxy(path) as asked:
        assert ask(path, STATUS) == {"ok": True, "services": []}
    assert len(asked) == 1


@as_root
def test_who_may_not_ask_is_told_so(tmp_path: Path) -> None:
    let_everybody_through(tmp_path)
    groups, group = os.getgroups(), os.getegid()
    with bind(tmp_path / "s") as listener:
        listener.listen()
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        try:
            with pytest.raises(ControlError, match="may not ask the proxy; use sudo"):
                ask(tmp_path / "s", STATUS)
        finally:
            os.seteuid(0)
            os.setegid(group)
            os.setgroups(groups)
