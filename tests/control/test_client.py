"""Asking the running proxy, and what an operator is told where that fails."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


def test_where_no_proxy_runs_its_socket_is_named(tmp_path: Path) -> None:
    bind(tmp_path / "dead").close()
    for path in (tmp_path / "dead", tmp_path / "none"):
        with pytest.raises(ControlError, match=f"no proxy answers at {path}"):
            ask(path, STATUS)


def test_what_is_no_socket_at_all_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="too long"):
        ask(tmp_path / ("x" * 200), STATUS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_ask_is_told_so(tmp_path: Path) -> None:
    for folder in list(tmp_path.parents)[:4]:
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(0o711)
    tmp_path.chmod(0o711)
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
