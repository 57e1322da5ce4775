"""Which models are here, which are in memory, and how to change that."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from ..engine import ModelCard
from ..errors import Conflict, ModelNotFound
from . import Service

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="Models on this machine")
async def list_models(service: Service) -> dict[str, Any]:
    """List the models that need no download, in OpenAI's shape; asks no network."""
    cards = await asyncio.to_thread(service.engine.local_models)
    return {"object": "list", "data": [_model(card.id, card) for card in cards]}


@router.get("/v1/models/{model:path}", summary="One model on this machine")
async def one_model(model: str, service: Service) -> dict[str, Any]:
    """Describe a model by its id or an alias; 404 if it is not here."""
    name = await service.resolve(model)
    cards = await asyncio.to_thread(service.engine.local_models)
    card = next((card for card in cards if card.id == name), None)
    if card is None:
        raise ModelNotFound(
            f"the model {model!r} is not on this machine; POST /api/pull/{name} fetches it"
        )
    return _model(model, card)


@router.get("/api/ps", summary="Models in memory")
async def loaded_models(service: Service) -> dict[str, list[str]]:
    """List the models that are loaded."""
    return {"models": service.models.loaded}


@router.post("/api/ps/{model:path}", summary="Load a model", status_code=201)
async def load_model(model: str, service: Service) -> Response:
    """Load a model into memory and return when it is there; 409 if it was already."""
    name = await service.resolve(model)
    if name in service.models.loaded:
        raise Conflict(f"the model {name!r} is loaded already")
    (await service.models.acquire(name)).release()
    return Response(status_code=201)


@router.delete("/api/ps/{model:path}", summary="Unload a model", status_code=204)
async def unload_model(model: str, service: Service) -> Response:
    """Free a model's memory; 404 if it is not loaded, 409 while it is in use."""
    await service.models.unload(await service.resolve(model))
    return Response(status_code=204)


def _model(identifier: str, card: ModelCard) -> dict[str, Any]:
    return {
        "id": identifier,
        "object": "model",
        "created": card.created,
        "owned_by": card.owned_by,
    }
