"""A runner as a process of its own, which may become another user."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running import LIMIT_SECONDS

_PROGRAM = """
import os, sys
from autostart_proxy import run
import uvloop, autostart_proxy.backends.runner.server  # only root may read the library
os.dup2(int(sys.argv[1]), 3)
os.close(int(sys.argv[1]))
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
run.run_commands()
"""


@contextmanager
def runner_of(path: Path, user: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A runner at this path, with the socket that systemd would hand over.

    Args:
        user: who it becomes; only root can become somebody else.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _PROGRAM, str(listener.fileno())),
                *([] if user is None else [str(user)]),
            ],
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "A_SECRET": "of the runner's"},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        sys.stderr.write(process.stderr.read())
        process.stderr.close()
