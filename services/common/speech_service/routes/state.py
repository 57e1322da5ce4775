"""How the service is: `/health`, `/ready`, `/metrics`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ..http.intake import Service

router = APIRouter(tags=["state"])

_HEALTH: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the process answers",
        "content": {
            "text/plain": {"example": "OK"},
            "application/json": {
                "example": {
                    "status": "ok",
                    "service": "faster-whisper",
                    "model": "Systran/faster-whisper-small",
                    "ready": True,
                }
            },
        },
    }
}


@router.get("/health", summary="Whether the process is alive", responses=_HEALTH)
async def health(request: Request, service: Service) -> Response:
    """Answer `OK` at once, loading or not; with `Accept: application/json` an object.

    On a port of the older server (PORT_WHISPERLIVE, HTTP_PORT) the answer is that server's.
    """
    _, port = request.scope.get("server") or ("", None)
    if port in service.settings.older_ports:
        return JSONResponse({"status": "healthy"})
    if "application/json" not in request.headers.get("accept", ""):
        return PlainTextResponse("OK")
    return JSONResponse(
        {
            "status": "ok",
            "service": service.engine.name,
            "model": service.engine.default_model,
            "ready": service.readiness.ready,
        }
    )


@router.get(
    "/ready",
    summary="Whether a request would be served at once",
    responses={
        200: {"content": {"application/json": {"example": {"ready": True, "loaded": ["base"]}}}},
        503: {
            "description": "not yet; `reason` says why",
            "content": {
                "application/json": {
                    "example": {"ready": False, "reason": "the model is being loaded"}
                }
            },
        },
    },
)
async def ready(service: Service) -> Response:
    """Answer 200 once the default model has been loaded and work is accepted."""
    if service.closing:
        return JSONResponse({"ready": False, "reason": "the service is shutting down"}, 503)
    if not service.readiness.ready:
        headers = {"Retry-After": "1"}
        return JSONResponse({"ready": False, "reason": service.readiness.reason}, 503, headers)
    return JSONResponse({"ready": True, "loaded": service.models.loaded})


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"example": "speech_queue_length 0.0\n"}}}},
)
async def metrics(service: Service) -> Response:
    """Return queue length, audio seconds, real-time factor, model loads and process figures."""
    body = generate_latest(service.metrics.registry)
    return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})
