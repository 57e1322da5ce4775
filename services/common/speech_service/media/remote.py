"""Fetching a recording from an address a client names, without becoming its tool.

Off unless the operator allows it. Rules: only http and https on public addresses; a name is
resolved once and the connection goes to the address that was checked, so a name that changes its
answer changes nothing; every redirect is checked anew; bytes are capped, and time is from the first
connection to the last byte, however slowly they come; nothing about the target but the recording
itself reaches the client.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import string
import tempfile
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ..contract.errors import EmptyFile, InvalidRequest, TooLarge, UrlBlocked

MAX_REDIRECTS = 5
TIMEOUT_SECONDS = 10.0
TOTAL_SECONDS = 300.0
_CHUNK = 1 << 16
_SPOOL_BYTES = 1 << 20
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All that is given out of IPv6 (RFC 4291, section 2.4); what is outside wraps or stays local."""
_RESERVED = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # for protocols, RFC 6890
            "192.88.99.0/24",  # relays of 6to4, RFC 7526
            "3fff::/20",  # for documents, RFC 9637
        ),
    )
)
"""What not every version of `ipaddress` knows."""
_WRITTEN = string.ascii_letters + string.digits + string.punctuation

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class FetchFailed(InvalidRequest):
    """The address is allowed, yet gave no recording."""

    code = "url_fetch_failed"


def is_public(address: IPAddress) -> bool:
    """Say whether an address belongs to the public internet.

    Addresses that wrap another one (IPv4-mapped, 6to4, Teredo, NAT64) are as public as that one.
    Source: the IANA special-purpose address registries, through `ipaddress`.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    reserved = any(address in network for network in _RESERVED)
    return address.is_global and not address.is_multicast and not reserved


def fetch(url: str, max_bytes: int, allowed: Callable[[IPAddress], bool] = is_public) -> IO[bytes]:
    """Download a recording into a temporary file, positioned at its start.

    Args:
        url: http or https, without user and password.
        max_bytes: limit on the body.
        allowed: which addresses may be connected to.
    Raises:
        UrlBlocked: the address, or one it redirects to, is not allowed; no connection was made.
        TooLarge, EmptyFile, FetchFailed.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        target = _checked(url)
        connection = _connect(target, allowed, deadline)
        try:
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            headers = {"Accept": "audio/*, video/*, */*;q=0.5"}
            connection.request("GET", quote(path, _WRITTEN), headers=headers)
            response = connection.getresponse()
            if response.status in (301, 302, 303, 307, 308):
                url = _joined(url, response.getheader("Location") or "")
                continue
            if response.status != 200:
                raise FetchFailed(f"the address answered {response.status}", "url")
            return _saved(response, max_bytes)
        except TimeoutError as error:
            raise _too_slow() from error
        except (OSError, http.client.HTTPException) as error:
            raise FetchFailed("the address could not be read", "url") from error
        finally:
            connection.close()
    raise FetchFailed("the address redirects too often", "url")


def _joined(url: str, location: str) -> str:
    """Return where a redirect leads; bytes beyond ASCII in it are kept as they are."""
    try:
        return urljoin(url, quote(location.encode("latin-1"), _WRITTEN))
    except ValueError as error:
        raise FetchFailed("the address redirects to what is no URL", "url") from error


def _left(deadline: float) -> float:
    """Return how many seconds the next step may take.

    Raises:
        FetchFailed: all have been taken.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise _too_slow()
    return min(left, TIMEOUT_SECONDS)


def _too_slow() -> FetchFailed:
    return FetchFailed("the address took too long", "url")


def _checked(url: str) -> SplitResult:
    """Return a URL's parts if its form is acceptable."""
    try:
        target = urlsplit(url)
        port = target.port
    except ValueError as error:
        raise UrlBlocked("the address is not a valid URL", "url") from error
    if target.scheme not in ("http", "https") or not target.hostname or port == 0:
        raise UrlBlocked("only http and https addresses are fetched", "url")
    if target.username is not None or not url.isprintable() or " " in url:
        raise UrlBlocked("the address holds a password or characters it may not", "url")
    if target.hostname.isascii():
        return target
    try:
        host = target.hostname.encode("idna").decode()
    except UnicodeError as error:
        raise UrlBlocked("the host of the address is no name", "url") from error
    return target._replace(netloc=host if port is None else f"{host}:{port}")


class _Checked(http.client.HTTPConnection):
    """A connection to an address that has been checked; the host header keeps the name.

    Args:
        target: names the host.
        address: where the connection goes.
        deadline: on the monotonic clock, for all that comes over it.
    """

    def __init__(self, target: SplitResult, address: str, deadline: float) -> None:
        super().__init__(target.hostname or "", _port(target))
        self._address = address
        self._deadline = deadline
        self.response_class = self._timed  # type: ignore[assignment]

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), _left(self._deadline))

    def _timed(self, sock: socket.socket, **how: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, **how)
        arriving: io.RawIOBase = response.fp.detach()
        response.fp = io.BufferedReader(_Timed(arriving, sock, self._deadline))
        return response


class _CheckedTls(_Checked):
    """The same over TLS; the certificate must be that of the name."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


class _Timed(io.RawIOBase):
    """What arrives at a socket until its time is over, though it be a byte now and then."""

    def __init__(self, arriving: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._arriving = arriving
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        """See `io.IOBase.readable`."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """See `io.RawIOBase.readinto`; FetchFailed when the time is over."""
        self._sock.settimeout(_left(self._deadline))
        return self._arriving.readinto(buffer)

    def close(self) -> None:
        """See `io.IOBase.close`."""
        self._arriving.close()
        super().close()


def _connect(
    target: SplitResult, allowed: Callable[[IPAddress], bool], deadline: float
) -> http.client.HTTPConnection:
    """Return a connection whose socket will go to an address that has been checked."""
    address = _resolved(target.hostname or "", _port(target), allowed)
    return (_CheckedTls if target.scheme == "https" else _Checked)(target, address, deadline)


def _port(target: SplitResult) -> int:
    return target.port or (443 if target.scheme == "https" else 80)


def _resolved(host: str, port: int, allowed: Callable[[IPAddress], bool]) -> str:
    """Return one address of a host, if all of them are allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchFailed("the host of the address is unknown", "url") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not addresses or not all(allowed(ipaddress.ip_address(address)) for address in addresses):
        raise UrlBlocked("the address does not belong to the public internet", "url")
    return addresses[0]


def _saved(response: http.client.HTTPResponse, max_bytes: int) -> IO[bytes]:
    """Copy a body into a temporary file, within its limit of size."""
    file = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115
    try:
        size = 0
        while chunk := response.read1(_CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise TooLarge(f"the file is larger than {max_bytes} bytes", "url")
            file.write(chunk)
        if not size:
            raise EmptyFile("the file is empty", "url")
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file
