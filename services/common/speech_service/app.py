"""Puts a service behind its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPMethod

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from . import __version__
from .contract.engine import Engine
from .contract.errors import SpeechError
from .contract.settings import Settings
from .http.serving import Access, BearerAuth, ClientLeft, error_response, translated
from .routes import models, openai, page, state
from .routes.docs import add_docs
from .work.service import SpeechService

THREADS = "speech"
"""What the names of the threads that do the work begin with."""
_SPARE_THREADS = 8
"""Beside the workers: probing uploads, loading and fetching models, looking up names."""


def create_app(
    engine: Engine, settings: Settings, title: str, families: Sequence[APIRouter] = ()
) -> FastAPI:
    """Return the whole service as an ASGI application.

    Args:
        engine: not touched before the application starts, and then only in threads.
        settings: of the environment, usually.
        title: name in the documentation.
        families: routes beside OpenAI's, those of the models, of the state and of the page.
    """
    service = SpeechService(engine, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(settings.jobs + _SPARE_THREADS, THREADS)
        loop.set_default_executor(threads)
        service.start()
        yield
        await service.close()
        # The loop waits for the threads of its executor when it closes; one that decodes may take
        # longer than anybody is willing to wait.
        loop.set_default_executor(ThreadPoolExecutor(1))
        threads.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title=title, version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for router in (openai.router, *families, models.router, state.router, page.router):
        app.include_router(router)
    add_docs(app, key_needed=settings.api_key is not None)
    _add_error_handlers(app)
    # The last one added is the first to see a request: preflights carry no key.
    if settings.api_key:
        app.add_middleware(BearerAuth, key=settings.api_key.get_secret_value())
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Access, metrics=service.metrics)
    return app


def _methods(request: Request) -> list[str]:
    """Return what the path of a request is for (RFC 9110, section 10.2.1), over all its routes."""
    return [
        method
        for method in HTTPMethod
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every failure in one shape."""

    async def refuse(request: Request, error: Exception) -> Response:
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
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(ClientLeft, client_left)
    app.add_exception_handler(ClientDisconnect, client_left)
