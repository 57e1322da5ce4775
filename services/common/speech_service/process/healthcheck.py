"""`python -m speech_service.process.healthcheck`: exit 0 if `/health` here answers 200.

Only the standard library's sockets: a check that runs for as long as the container lives should
cost next to nothing.
"""

from __future__ import annotations

import os
import socket
import sys

_REQUEST = b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n"


def healthy(port: int, timeout: float = 2.0) -> bool:
    """Say whether the service on this machine's loopback answers 200.

    Args:
        port: of the service.
        timeout: seconds for each step.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.sendall(_REQUEST)
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not healthy(int(os.environ.get("UVICORN_PORT") or 8000)))
