"""What a visitor's browser may be made to do here by pages of other sites: nothing.

A browser reaches what its visitor reaches, a service on his own machine for one, and brings the
password that he once gave to the site in front. Whoever has no API key is let in by nothing else.

Rules:
- Programs send neither `Origin` nor Fetch Metadata; they are asked for neither.
- `Sec-Fetch-Site` is believed, since no page can set it (Fetch Metadata, section 2.3). A browser
  without it, or a WebSocket of one, has to come from the own origin (RFC 6454, section 7.3): the
  Host that was asked for, or the one that a proxy in front was asked for. A port that a proxy left
  out of Host is the usual one of the origin's scheme, or `X-Forwarded-Port`.
- Links may be followed: a page that is opened changes nothing, and who linked to it cannot read it.
- On the loopback every Host but its own names is refused, for any name can be made to resolve to
  127.0.0.1 (DNS rebinding); not an address, which is made to be nothing else. Names of sites come
  through a proxy alone, which says so; a page could say so too, but its browser writes the port
  that it connects to into Host, and no script changes that. So a Host with the port of this service
  was not a proxy's.
- A container that is published on the loopback alone is there as well, at a port that it does not
  know. Other containers call it by a name without a dot, which nothing on the internet has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..contract.errors import CrossSite, SpeechError, UnknownHost
from ..contract.settings import Settings
from .refusals import refuse_request

_PORTS = {"http": 80, "https": 443}
_MARKS = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via")
"""Headers by which proxies tell that they stand in between."""


class OwnPagesOnly:
    """ASGI middleware: refuses what pages of other sites, or pages under other names, ask for."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._origins = {origin.lower().rstrip("/") for origin in settings.allow_origins}
        self._hosts = {host.lower() for host in settings.allow_hosts}
        self._published = _is_loopback(settings.published_on.strip("[]"))
        self._on_loopback = self._published or _is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = None if scope["type"] == "lifespan" else self._objection(scope)
        if error is None:
            await self._app(scope, receive, send)
        else:
            await refuse_request(error, scope, receive, send)

    def _objection(self, scope: Scope) -> SpeechError | None:
        headers = Headers(scope=scope)
        if not self._knows(headers, (scope.get("server") or (None, None))[1]):
            return UnknownHost(
                "this service is not known by the name in Host; use localhost, or add the name to "
                "ALLOW_HOSTS"
            )
        if self._is_foreign(scope, headers):
            return CrossSite(
                "pages of other sites may not use this service; if this one may, add its origin to "
                "ALLOW_ORIGINS; if it is the service's own, the proxy in front has to pass on Host"
            )
        return None

    def _knows(self, headers: Headers, own_port: int | None) -> bool:
        """Whether the Host of a request is one of the service's, where that is asked at all."""
        host = headers.get("host", "")
        if not host or not (self._on_loopback or self._hosts):
            return True
        parts = _authority(host)
        name = parts and (parts.hostname or "").rstrip(".")
        if not parts or not name:
            return False
        if name in self._hosts or name == "localhost" or _is_address(name):
            return True
        if self._published and "." not in name:
            return True
        forwarded = any(mark in headers for mark in _MARKS)
        return self._on_loopback and forwarded and not self._is_direct(parts.port, own_port)

    def _is_direct(self, asked: int | None, own_port: int | None) -> bool:
        """Whether a browser that connects to this service itself writes such a port into Host."""
        if self._published:
            return asked not in (None, *_PORTS.values())
        return (asked or _PORTS["http"]) == own_port

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Whether a page of another site asks."""
        origin = headers.get("origin")
        if "*" in self._origins or (origin or "").lower() in self._origins:
            return False
        site = headers.get("sec-fetch-site")
        if site is None:
            return origin is not None and not _is_own(origin, headers)
        return site not in ("same-origin", "none") and not _is_followed_link(scope, headers)


def _is_followed_link(scope: Scope, headers: Headers) -> bool:
    """Whether a browser opens an address in a tab (Fetch Metadata, sections 2.1 and 2.2)."""
    opens = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return reads and opens == ("navigate", "document")


def _is_own(origin: str, headers: Headers) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    if scheme not in _PORTS or (scheme == "http" and _first(headers, "proto") in ("https", "wss")):
        return False
    page = _authority(authority)
    return page is not None and any(
        page.hostname == own.hostname
        and (page.port or _PORTS[scheme]) in _ports(own, scheme, headers)
        for own in filter(None, map(_authority, (headers.get("host", ""), _first(headers, "host"))))
    )


def _ports(own: SplitResult, scheme: str, headers: Headers) -> Iterator[int]:
    """Return the ports that a host may stand for."""
    yield own.port or _PORTS[scheme]
    forwarded = _first(headers, "port")
    if own.port is None and forwarded.isdecimal():
        yield int(forwarded)


def _first(headers: Headers, what: str) -> str:
    """Return what the outermost proxy says of the request that it was sent."""
    return headers.get(f"x-forwarded-{what}", "").partition(",")[0].strip().lower()


def _authority(text: str) -> SplitResult | None:
    """Return host and port, None where a text is no such thing."""
    try:
        parts = urlsplit(f"//{text}")
        if parts.netloc == text and "@" not in text and parts.port != 0:
            return parts
    except ValueError:
        pass
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine and nobody else's."""
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"
