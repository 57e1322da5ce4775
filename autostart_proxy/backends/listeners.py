"""Who listens on a port of this machine."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import psutil

_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that takes the connections made to an address.

    `pid` is None where the system does not tell us whose it is: another user's, to one who is
    not root. `container` is the id of the container that the process runs in; empty for none.
    """

    pid: int | None
    name: str = ""
    container: str = ""

    def __str__(self) -> str:
        """For people: the process, as far as it is known."""
        if self.pid is None:
            return "a process of another user"
        return f"process {self.pid} ({self.name})" if self.name else f"process {self.pid}"


def taken(host: str, port: int) -> bool:
    """Whether somebody listens where a program would.

    Found out by binding the address for a moment, which nobody else notices. An address that
    this machine does not have, and a port that we may not bind, count as free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without it, what is left of connections that ended (TIME_WAIT) would count as well.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def listeners(host: str, port: int) -> list[Listener]:
    """Who takes the connections to an address, those bound to all addresses included.

    Reads every process's open files: call it from a thread.

    Args:
        host: an address of this machine, or a name of it; of another machine nobody is known.
    """
    addresses = _own_addresses(host)
    found = [
        each
        for each in (psutil.net_connections("tcp") if addresses else ())
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == port
        if _reaches(each.laddr[0], addresses)
    ]
    # A child that inherited the socket holds it as well as its parent.
    return sorted({_listener(each.pid) for each in found}, key=str)


def _own_addresses(host: str) -> set[IPv4Address | IPv6Address]:
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
    return {ipaddress.ip_address(each) for each in found if _is_own(each)}


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.bind((address, 0))
        return True
    return False


def _reaches(bound: str, addresses: set[IPv4Address | IPv6Address]) -> bool:
    theirs = ipaddress.ip_address(bound)
    if isinstance(theirs, IPv6Address) and theirs.ipv4_mapped:
        theirs = theirs.ipv4_mapped
    return theirs.is_unspecified or theirs in addresses


def _listener(pid: int | None) -> Listener:
    if pid is None:
        return Listener(None)
    name, groups = "", ""
    with suppress(psutil.Error, OSError):
        name = psutil.Process(pid).name()
        # Where a container is a control group of its own, its name holds the id: cgroups(7).
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    found = _CONTAINER_ID.search(groups)
    return Listener(pid, name, found[0] if found else "")
