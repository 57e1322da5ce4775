"""Who listens on a port of this machine."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that takes the connections made to an address.

    `pid` is None where the system does not tell us whose it is: another user's, to one who is
    not root.
    """

    pid: int | None
    name: str = ""

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
    """
    found = [
        each
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and _reaches(each.laddr, host, port)
    ]
    # A child that inherited the socket holds it as well as its parent.
    return sorted({Listener(each.pid, _name(each.pid)) for each in found}, key=str)


def _reaches(bound: tuple[str, int], host: str, port: int) -> bool:
    if bound[1] != port:
        return False
    try:
        mine, theirs = ipaddress.ip_address(host), ipaddress.ip_address(bound[0])
    except ValueError:  # a name: which of its addresses, the resolver would have to say
        return True
    if isinstance(theirs, ipaddress.IPv6Address) and theirs.ipv4_mapped:
        theirs = theirs.ipv4_mapped
    return theirs == mine or theirs.is_unspecified


def _name(pid: int | None) -> str:
    try:
        return psutil.Process(pid).name() if pid is not None else ""
    except psutil.Error:
        return ""
