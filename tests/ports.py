"""Ports for what the tests start."""

from __future__ import annotations

import contextlib
import random
import socket

_PORTS = iter(random.sample(range(20000, 30000), 10000))
"""In no order, so that two runs at once get on; below those that outgoing connections take."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, and nobody has been given."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")
