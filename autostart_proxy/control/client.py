"""The operators' side of the control socket; `server` describes what is said on it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autostart_proxy.control.sockets import SYSTEM_SOCKET, ControlError, NoProxy, own_socket


def socket_to_ask(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the default socket of the proxy to talk to: this user's own, else the system's."""
    own = own_socket(environment)
    return own if own.exists() else SYSTEM_SOCKET


def ask(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the running proxy and return its answer; blocks until the proxy is done.

    Raises:
        ControlError: no proxy runs there, this user may not ask it, or it said no.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoProxy(
                f"no proxy answers at {path}; start it, or name its socket with --socket"
            ) from None
        except PermissionError:
            raise ControlError(
                f"{path}: this user may not ask the proxy; use sudo, or join the socket's group"
            ) from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from None
    if not line:
        raise ControlError("the proxy hung up before it was done; it was most likely stopped")
    answer: dict[str, Any] = json.loads(line)
    if not answer["ok"]:
        raise ControlError(answer["message"])
    return answer
