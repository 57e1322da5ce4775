"""Small pieces of HTTP that the routes share: who left, who may enter, what is recorded."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from ..contract.errors import HttpError, InvalidField, SpeechError, Unauthorized
from ..work.metrics import Metrics

T = TypeVar("T")
log = logging.getLogger("speech_service.access")

REALTIME_KEY_PREFIX = "openai-insecure-api-key."
"""How browsers, which cannot set headers on a WebSocket, hand OpenAI's Realtime API a key."""

_OPEN = re.compile(r"/|/health|/docs|/docs/.*|/openapi\.json")
"""What needs no key over HTTP: whether the service lives, and pages that hold no data. They ask for
the key themselves, since nobody can give a browser one before it has loaded a page."""


class ClientLeft(Exception):
    """The client closed its connection before it was answered."""


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it as soon as the client is gone.

    Args:
        request: its body must have been read.
    Raises:
        ClientLeft: nobody is left to answer.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Return once the client has closed its connection; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def translated(error: Exception) -> SpeechError:
    """Return what any failure of a route means to the client; foreign ones are translated here."""
    match error:
        case SpeechError():
            return error
        case RequestValidationError():
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"][1:])
            message = first["msg"].removeprefix("Value error, ")
            return InvalidField(f"{field}: {message}", field or None)
        case HTTPException():
            return HttpError(error.status_code, str(error.detail))
        case _:
            return SpeechError("the service failed; its log says why")


def error_response(error: SpeechError) -> Response:
    """Return an error in OpenAI's shape."""
    return JSONResponse(error.as_openai(), error.status, error.headers)


class Access:
    """ASGI middleware: one log line and one count per request; the query is never recorded."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 499

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            # Caught here and not left to the framework, which would close the connection as well.
            log.exception("request failed")
            if status != 499:
                raise
            await error_response(translated(error))(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            level = logging.DEBUG if route in ("/health", "/ready", "/metrics") else logging.INFO
            seconds = time.monotonic() - started
            fields = {"method": scope["method"], "route": route, "status": status}
            log.log(level, "request", extra={**fields, "seconds": round(seconds, 3)})


class BearerAuth:
    """ASGI middleware: everything but `/health`, the page and the docs needs the API key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._open(scope) or self._authorized(scope):
            await self._app(scope, receive, send)
            return
        error = Unauthorized("a valid API key is required: Authorization: Bearer <key>")
        response = error_response(error)
        if scope["type"] == "websocket":
            await send(
                {
                    "type": "websocket.http.response.start",
                    "status": response.status_code,
                    "headers": response.raw_headers,
                }
            )
            await send({"type": "websocket.http.response.body", "body": response.body})
            return
        await response(scope, receive, send)

    def _open(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return scope["type"] == "http" and _OPEN.fullmatch(path) is not None

    def _authorized(self, scope: Scope) -> bool:
        scheme, _, token = _header(scope, b"authorization").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._key):
            return True
        offers = [offer for offer in scope.get("subprotocols", ()) if _holds_key(offer)]
        keys = [offer.removeprefix(REALTIME_KEY_PREFIX) for offer in offers]
        # Names of protocols allow few characters: whoever has others in a key percent-encodes them.
        spellings = [one for key in keys for one in (key.encode(), unquote_to_bytes(key))]
        return any(hmac.compare_digest(spelling, self._key) for spelling in spellings)


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
