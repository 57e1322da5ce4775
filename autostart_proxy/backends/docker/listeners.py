"""Who listens on a port of this machine, as far as the system tells.

The kernel names the socket (`/proc/net/tcp`), the socket's process (`/proc/PID/fd`) and that one's
container (its control group). Only root may see whose a socket of another user is; and from inside
a container there is nothing to see of the machine.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Listener:
    """A process that listens.

    `container` is the id of the container that it runs in; empty where it runs in none.
    """

    pid: int
    program: str
    container: str

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid})"


def listeners(host: str, port: int, proc: Path = _PROC) -> list[Listener]:
    """The processes that get the connections to a host and port; none where that is not known.

    Reads much of `/proc`, which takes some milliseconds.

    Args:
        host: an address of this machine, or a name of it.
    """
    sockets = set(_sockets(_addresses(host), port, proc))
    if not sockets:
        return []
    return [_describe(process) for process in proc.glob("[0-9]*") if _holds(process, sockets)]


def _addresses(host: str) -> set[str]:
    """The addresses of this machine that a host means, with those that mean all of them; none
    where it is another machine."""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
    if not any(map(_is_own, found)):
        return set()
    return found | {"0.0.0.0", "::"}  # noqa: S104 - nothing is bound here


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.bind((address, 0))
        return True
    return False


def _sockets(addresses: set[str], port: int, proc: Path) -> Iterator[str]:
    """What the links in `/proc/PID/fd` say of the sockets that listen there."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            # proc(5): number, local address, remote address, state, ... inode as the tenth
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                address, at = fields[1].split(":")
                if fields[3] == _LISTENING and int(at, 16) == port and _ip(address) in addresses:
                    yield f"socket:[{fields[9]}]"


def _ip(written: str) -> str:
    """An address as /proc writes it: in words of four bytes, each in the machine's own order."""
    words = [written[at : at + 8] for at in range(0, len(written), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _holds(process: Path, sockets: set[str]) -> bool:
    with suppress(OSError), os.scandir(process / "fd") as links:  # else it is not ours to see
        for each in links:
            with suppress(OSError):
                if os.readlink(each.path) in sockets:
                    return True
    return False


def _describe(process: Path) -> Listener:
    program, groups = "a program", ""
    with suppress(OSError):
        program = (process / "comm").read_text().strip()
        groups = (process / "cgroup").read_text()
    found = _CONTAINER_ID.search(groups)
    return Listener(int(process.name), program, found[0] if found else "")
