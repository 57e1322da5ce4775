"""Puts a service behind its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from . import __version__
from .contract.engine import WORKER_THREADS, Engine
from .contract.settings import Settings
from .http.access import Access
from .http.auth import BearerAuth
from .http.browsers import OwnPagesOnly
from .http.refusals import add_error_handlers
from .http.sockets import Connections
from .routes import models, openai, page, state
from .routes.docs import add_docs
from .work.service import SpeechService

_SPARE_THREADS = 8
"""Beside the workers: probing uploads, looking up names, freeing models. Nothing that takes long or
waits for somebody else: what loads and what fetches has threads and processes of its own."""


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
        threads = ThreadPoolExecutor(settings.jobs + _SPARE_THREADS, WORKER_THREADS)
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
    add_error_handlers(app)
    app.add_middleware(Connections, places=service.live_connections)
    # The last one added is the first to see a request: preflights carry no key. No browser brings
    # the key unasked, so whoever has it needs not say where the request came from.
    if settings.api_key:
        app.add_middleware(BearerAuth, key=settings.api_key.get_secret_value())
    else:
        app.add_middleware(OwnPagesOnly, settings=settings)
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
