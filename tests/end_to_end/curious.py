"""A program of `command` that tries what it should not be able to do, and says how far it came.

    python curious.py PORT

`GET /` answers with JSON: who it is, its environment, and for each path in the query what trying it
gave: `connect` to a socket, `read` a file, `write` into a folder, and `signal` a process by number.
"""

from __future__ import annotations

import grp
import http.server
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit


def connect(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    return "connected"


def read(path: str) -> str:
    return Path(path).read_text(errors="replace")


def write(folder: str) -> str:
    file = Path(folder, "mine")
    file.touch()
    file.unlink()
    return "written"


def signal(number: str) -> str:
    os.kill(int(number), 0)
    return "signalled"


TRIALS: dict[str, Callable[[str], str]] = {
    trial.__name__: trial for trial in (connect, read, write, signal)
}


def tried(trial: str, what: str) -> str:
    try:
        return TRIALS[trial](what)
    except OSError as error:
        return type(error).__name__


class Curious(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wishes = parse_qsl(urlsplit(self.path).query)
        found = {
            "user": os.getuid(),
            "groups": sorted(
                grp.getgrgid(group).gr_name for group in {os.getgid(), *os.getgroups()}
            ),
            "environment": dict(os.environ),
            "tried": {f"{trial} {what}": tried(trial, what) for trial, what in wishes},
        }
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Curious).serve_forever()
