"""Where the socket of the running proxy is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_SOCKET = Path("/run/autostart-proxy/control.sock")
TEMPORARY = Path("/tmp")  # noqa: S108 - a folder of the user's own is made there, and checked


class ControlError(Exception):
    """The running proxy could not be asked, or could not do it; the message says why."""


class NoProxy(ControlError):
    """Nobody listens at the socket."""


def own_socket(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a proxy that this user runs puts its socket by default.

    systemd's runtime folder, /run/autostart-proxy for root, else the user's runtime folder, else
    a folder of the user's own beside other temporary files.
    """
    if folder := environment.get("RUNTIME_DIRECTORY"):
        return Path(folder.partition(":")[0]) / SYSTEM_SOCKET.name
    if os.geteuid() == 0:
        return SYSTEM_SOCKET
    if folder := environment.get("XDG_RUNTIME_DIR"):
        return Path(folder) / "autostart-proxy" / SYSTEM_SOCKET.name
    return TEMPORARY / f"autostart-proxy-{os.geteuid()}" / SYSTEM_SOCKET.name
