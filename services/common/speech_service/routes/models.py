"""Which models are here, which are in memory, and how to change that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from ..contract.engine import ModelCard
from ..contract.errors import (
    Conflict,
    InvalidField,
    ModelNotFound,
    ModelUnavailable,
    QueueFull,
)
from ..http.disconnect import unless_client_leaves
from ..http.intake import Service
from ..http.openapi import described
from ..http.refusals import translated
from ..http.sse import event
from ..work.service import SpeechService

router = APIRouter(tags=["models"])

_NAME = "Systran/faster-whisper-small"
Name = Annotated[str, Path(description="a model id or an alias", examples=[_NAME])]
_CARD = {"id": _NAME, "object": "model", "created": 1_700_000_000, "owned_by": "Systran"}


def _example(example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}}}}


@router.get(
    "/v1/models",
    summary="Models on this machine",
    responses=_example({"object": "list", "data": [_CARD]}),
)
async def list_models(service: Service) -> dict[str, Any]:
    """List the models that need no download, in OpenAI's shape; asks no network."""
    cards = await asyncio.to_thread(service.engine.local_models)
    return {"object": "list", "data": [_model(card.id, card) for card in cards]}


@router.get(
    "/v1/models/{model:path}",
    summary="One model on this machine",
    responses=_example(_CARD) | described(ModelNotFound, InvalidField),
)
async def one_model(model: Name, service: Service) -> dict[str, Any]:
    """Describe a model by its id or an alias; 404 if it is not here."""
    name = await service.resolve(model)
    cards = await asyncio.to_thread(service.engine.local_models)
    card = next((card for card in cards if card.id == name), None)
    if card is None:
        raise ModelNotFound(
            f"the model {model!r} is not on this machine; POST /api/pull/{name} fetches it, "
            "where ALLOW_MODELS lets it"
        )
    return _model(model, card)


@router.get("/api/ps", summary="Models in memory", responses=_example({"models": [_NAME]}))
async def loaded_models(service: Service) -> dict[str, list[str]]:
    """List the models that are loaded."""
    return {"models": service.models.loaded}


@router.post(
    "/api/ps/{model:path}",
    summary="Load a model",
    status_code=201,
    response_class=Response,
    responses=described(ModelNotFound, Conflict, InvalidField, QueueFull, ModelUnavailable),
)
async def load_model(model: Name, request: Request, service: Service) -> Response:
    """Load a model into memory and return when it is there; 409 if it was already."""
    name = await service.resolve(model)
    if name in service.models.loaded:
        raise Conflict(f"the model {name!r} is loaded already")
    (await unless_client_leaves(request, service.acquire(name))).release()
    return Response(status_code=201)


@router.delete(
    "/api/ps/{model:path}",
    summary="Unload a model",
    status_code=204,
    responses=described(ModelNotFound, Conflict, InvalidField),
)
async def unload_model(model: Name, service: Service) -> Response:
    """Free a model's memory; 404 if it is not loaded, 409 while it is in use."""
    await service.models.unload(await service.resolve(model))
    return Response(status_code=204)


@router.post(
    "/api/pull/{model:path}",
    summary="Download a model",
    status_code=201,
    response_class=PlainTextResponse,
    responses={
        201: {"content": {"text/plain": {"example": "Model downloaded"}}},
        200: {
            "description": "it was here already; or, with `stream=true`, progress as events",
            "content": {
                "text/plain": {"example": "Model already exists"},
                "text/event-stream": {
                    "example": 'data: {"status":"downloading","completed":1024,"total":4096}\n\n'
                },
            },
        },
        **described(ModelNotFound, InvalidField, QueueFull, ModelUnavailable),
    },
)
async def pull_model(
    model: Name, request: Request, service: Service, stream: bool = False
) -> Response:
    """Fetch a model from the hub so that it can be loaded later; ends if the client leaves."""
    name = await service.resolve(model)
    if stream:
        return StreamingResponse(_progress(service, name), media_type="text/event-stream")
    if await unless_client_leaves(request, service.fetched(name)):
        return PlainTextResponse("Model downloaded", 201)
    return PlainTextResponse("Model already exists")


async def _progress(service: SpeechService, name: str) -> AsyncIterator[bytes]:
    """Yield how far a download is, at most twice a second, and how it ended."""
    reached = (0, 0)

    def report(done: int, total: int) -> None:
        nonlocal reached
        reached = (done, total)

    fetching = asyncio.ensure_future(service.fetched(name, report))
    try:
        while not (await asyncio.wait((fetching,), timeout=0.5))[0]:
            yield event({"status": "downloading", "completed": reached[0], "total": reached[1]})
        error = fetching.exception()
        if isinstance(error, Exception):
            yield event(translated(error).as_openai())
        else:
            yield event({"status": "success"})
    finally:
        fetching.cancel()


def _model(identifier: str, card: ModelCard) -> dict[str, Any]:
    return {
        "id": identifier,
        "object": "model",
        "created": card.created,
        "owned_by": card.owned_by,
    }
