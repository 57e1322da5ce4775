"""How a failure looks to the client: foreign errors translated once, all of them in one shape."""

from __future__ import annotations

from http import HTTPMethod

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from ..contract.errors import HttpError, InternalError, SpeechError
from .disconnect import ClientLeft
from .forms import refused


def translated(error: Exception) -> SpeechError:
    """Return what any failure of a route means to the client; foreign ones are translated here."""
    match error:
        case SpeechError():
            return error
        case RequestValidationError():
            # The first place is where it came from: the body, the query or the path.
            return refused([one | {"loc": one["loc"][1:]} for one in error.errors()])
        case HTTPException():
            return HttpError(error.status_code, str(error.detail))
        case _:
            return InternalError()


def error_response(error: SpeechError) -> Response:
    """Return an error in OpenAI's shape."""
    return JSONResponse(error.as_openai(), error.status, error.headers)


async def refuse_request(error: SpeechError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in place of an application; a WebSocket's handshake is refused before it is accepted.

    See the extension `websocket.http.response` of ASGI.
    """
    response = error_response(error)
    if scope["type"] == "websocket":
        start = {"status": response.status_code, "headers": response.raw_headers}
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": response.body})
    else:
        await response(scope, receive, send)


def add_error_handlers(app: FastAPI) -> None:
    """Let an application answer every failure in that shape."""

    async def failed(request: Request, error: Exception) -> Response:
        headers = dict(getattr(error, "headers", None) or {})
        response = error_response(translated(error))
        response.headers.update(headers)
        if response.status_code == 405:
            response.headers["Allow"] = ", ".join(_methods(request))
        return response

    async def client_left(request: Request, error: Exception) -> Response:
        # Nobody reads this; 499 is what the access log of many servers calls it.
        return Response(status_code=499)

    for kind in (SpeechError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, failed)
    app.add_exception_handler(ClientLeft, client_left)
    app.add_exception_handler(ClientDisconnect, client_left)


def _methods(request: Request) -> list[str]:
    """Return what the path of a request is for (RFC 9110, section 10.2.1), over all its routes."""

    def allowed(method: HTTPMethod) -> bool:
        seen_as = HTTPMethod.GET if method is HTTPMethod.HEAD else method
        scope = {**request.scope, "method": seen_as}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in HTTPMethod if allowed(method)]
