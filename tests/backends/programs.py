"""Small programs that stand in for services; each is one string of Python.

They need nothing but the standard library, so that any Python image can run them.
"""

import sys
from typing import Any

from autostart_proxy.config.model import ServiceConfig

SERVE = """
import http.server, os, sys, uuid
life = uuid.uuid4().hex.encode()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/exit/"):
            print("last words", flush=True)
            os._exit(int(self.path.removeprefix("/exit/")))
        self.send_response(200)
        self.send_header("Content-Length", str(len(life)))
        self.end_headers()
        self.wfile.write(life)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Answer)
print("listening", flush=True)
"""
"""Answers each GET with an id of this run; `GET /exit/N` ends it with status N."""

GENTLE = SERVE + "import signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
STUBBORN = SERVE + "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
LOOP = "server.serve_forever()\n"

SLEEPS = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(600)"
"""Listens nowhere; ends with 0 on SIGTERM."""


def gentle() -> str:
    """Ends with 0 on SIGTERM."""
    return GENTLE + LOOP


def stubborn() -> str:
    """Ignores SIGTERM."""
    return STUBBORN + LOOP


def ends_after(seconds: float, on: str = "SIGTERM") -> str:
    """Ends with 0, but takes its time once it has got a signal."""
    return (
        SERVE
        + "import signal, threading, time\n"
        + "def end(*_):\n"
        + f"    threading.Timer({seconds}, os._exit, [0]).start()\n"
        + f"signal.signal(signal.{on}, end)\n"
        + LOOP
    )


def exits(code: int, after_seconds: float = 0.0) -> str:
    """Writes a line and ends."""
    return (
        "import sys, time\n"
        "print('cannot find my settings', flush=True)\n"
        f"time.sleep({after_seconds})\n"
        f"sys.exit({code})\n"
    )


def service(program: str, port: int, **keys: Any) -> ServiceConfig:
    """A service whose command is a program, told where it has to listen."""
    command = (sys.executable, "-c", program, "127.0.0.1", str(port))
    usual: dict[str, Any] = {"command": command, "proxy_port": port, "stop_timeout": 1.0}
    return ServiceConfig(**{"name": "test"} | usual | keys)
