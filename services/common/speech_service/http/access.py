"""What is recorded of a request: one line in the log and one count; the query never is.

Of a WebSocket there is a line at its end, and one where its handshake is refused.

HEAD is answered wherever GET is (RFC 9110, section 9.1): routes see it as GET, and the server
leaves the body out.
"""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..work.metrics import Metrics
from .refusals import error_response, translated

log = logging.getLogger("speech_service.access")


class Access:
    """ASGI middleware: records every request, and answers what no route has caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._live(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 499
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(asked, receive, watched)
        except Exception as error:
            # Caught here and not left to the framework, which would close the connection as well.
            log.exception("request failed")
            if status != 499:
                raise
            await error_response(translated(error))(asked, receive, watched)
        finally:
            route = getattr(asked.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            level = logging.DEBUG if route in ("/health", "/ready", "/metrics") else logging.INFO
            seconds = time.monotonic() - started
            fields = {"method": scope["method"], "route": route, "status": status}
            log.log(level, "request", extra={**fields, "seconds": round(seconds, 3)})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        status = 499

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = round(time.monotonic() - started, 3)
            log.info("websocket", extra={"route": route, "status": status, "seconds": seconds})
