"""From a `Host` header to a service.

A host name is canonical when it is in lower case and has neither port nor trailing dot; IPv6
literals keep their brackets. Configuration and requests pass through the same function, so the
two can only meet in one spelling. International names are written as A-labels (`xn--...`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Protocol

from autostart_proxy.errors import BadHost

_AUTHORITY = re.compile(
    r"""
    (?: (?P<name> [a-z0-9_] (?: [a-z0-9_-]{0,61} [a-z0-9_] )?
              (?: \. [a-z0-9_] (?: [a-z0-9_-]{0,61} [a-z0-9_] )? )* ) \.?
      | \[ (?P<ipv6> [0-9a-f:.]{2,45} ) \] )
    (?: : (?P<port> [0-9]{0,5} ) )?
    """,
    re.VERBOSE | re.ASCII,
)
_LONGEST_NAME = 253  # RFC 1035, section 2.3.4, without the trailing dot
_LONGEST_AUTHORITY = _LONGEST_NAME + len(".:65535")
_LAST_PORT = 65535


@lru_cache(maxsize=1024)
def canonical_host(authority: bytes | str) -> str:
    """Return the canonical host of a `Host` header's value or of a target's authority.

    Any port, valid or empty, and one trailing dot are dropped (RFC 9110, section 7.2; RFC 3986,
    section 3.2). Underscores are accepted because container names hold them. The answers for the
    last 1024 spellings are remembered, which takes a tenth of the time; refusals are not, so
    hostile input takes no memory.

    Args:
        authority: the value without surrounding white space; bytes as they came off the wire.
    Raises:
        BadHost: not a host name, an IPv4 address or an IPv6 literal in brackets, or a bad port.
    """
    text = authority.decode("latin-1") if isinstance(authority, bytes) else authority
    if len(text) > _LONGEST_AUTHORITY or not text.isascii():
        raise BadHost
    match = _AUTHORITY.fullmatch(text.lower())
    if match is None or int(match["port"] or 0) > _LAST_PORT:
        raise BadHost
    if name := match["name"]:
        if len(name) > _LONGEST_NAME:
            raise BadHost
        return name
    try:
        address = IPv6Address(match["ipv6"])
    except AddressValueError:
        raise BadHost from None
    # RFC 5952, section 5; str() writes these in hexadecimal before Python 3.13.
    mapped = address.ipv4_mapped
    return f"[{address}]" if mapped is None else f"[::ffff:{mapped}]"


class Named(Protocol):
    """What has further host names beside its own; all of them canonical."""

    @property
    def aliases(self) -> tuple[str, ...]: ...


class Routes:
    """Which service answers to which host.

    Args:
        services: by canonical host. Every host stands for one service: the configuration sees to
            that.
    """

    def __init__(self, services: Mapping[str, Named]) -> None:
        self._keys = {host: host for host in services}
        for host, service in services.items():
            self._keys.update(dict.fromkeys(service.aliases, host))

    def find(self, host: str) -> str | None:
        """Return the key of the service for a canonical host, or None."""
        return self._keys.get(host)
