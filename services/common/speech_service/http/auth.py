"""Who may enter: the API key, in a header or, from a browser's WebSocket, as a subprotocol.

Behind a site that asks for a password `Authorization` is the site's: browsers send the password in
it, and the service never sees it. So there is a second header for the key.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from ..contract.errors import Unauthorized, UnauthorizedBrowser
from .refusals import refuse_request

KEY_HEADER = "X-Api-Key"
"""Where a key may come besides `Authorization: Bearer`."""

REALTIME_KEY_PREFIX = "openai-insecure-api-key."
"""How browsers, which cannot set headers on a WebSocket, hand OpenAI's Realtime API a key."""

_OPEN = re.compile(r"/|/health|/docs|/docs/.*|/openapi\.json")
"""What needs no key over HTTP: whether the service lives, and pages that hold no data. They ask for
the key themselves, since nobody can give a browser one before it has loaded a page."""


class BearerAuth:
    """ASGI middleware: everything but `/health`, the page and the docs needs the API key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._open(scope) or self._authorized(scope):
            await self._app(scope, receive, send)
            return
        refusal = UnauthorizedBrowser if _by_browser(scope) else Unauthorized
        error = refusal(
            f"a valid API key is required: Authorization: Bearer <key>, or {KEY_HEADER}: <key>"
        )
        await refuse_request(error, scope, receive, send)

    def _open(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return scope["type"] == "http" and _OPEN.fullmatch(path) is not None

    def _authorized(self, scope: Scope) -> bool:
        return any(hmac.compare_digest(offer, self._key) for offer in _offers(scope))


def _by_browser(scope: Scope) -> bool:
    """Whether a browser asks (Fetch Metadata, section 2.2) that sends no Bearer token."""
    scheme = _header(scope, b"authorization").partition(b" ")[0]
    return bool(_header(scope, b"sec-fetch-mode")) and scheme.lower() != b"bearer"


def _offers(scope: Scope) -> Iterator[bytes]:
    """All that a client has put where a key may be."""
    scheme, _, token = _header(scope, b"authorization").partition(b" ")
    if scheme.lower() == b"bearer":
        yield token.strip()
    yield _header(scope, KEY_HEADER.lower().encode())
    for subprotocol in filter(_holds_key, scope.get("subprotocols", ())):
        key = subprotocol.removeprefix(REALTIME_KEY_PREFIX)
        yield key.encode()
        # Names of protocols allow few characters: who has others in a key percent-encodes them.
        yield unquote_to_bytes(key)


def chosen_protocol(websocket: WebSocket) -> str | None:
    """Return the first subprotocol offered that is no key, to accept the connection with.

    A browser that brings its key as a subprotocol closes a connection of which none is chosen.
    """
    offered: list[str] = websocket.scope.get("subprotocols", [])
    return next((offer for offer in offered if not _holds_key(offer)), None)


def _holds_key(subprotocol: str) -> bool:
    return subprotocol.startswith(REALTIME_KEY_PREFIX)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
