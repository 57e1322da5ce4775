"""The description of the API: `/openapi.json`, and Swagger UI at `/docs`.

Swagger UI comes with the package fastapi-swagger, so nothing is fetched from other hosts. All its
addresses are relative: it works below any path at which a proxy shows the service.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from ..contract.errors import Unauthorized
from ..http.auth import KEY_HEADER
from ..http.openapi import described

router = APIRouter(include_in_schema=False)

# Swagger UI styles its elements one by one, and draws its icons from data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_PAGES = files("speech_service") / "pages"
_SCHEMES = {
    "ApiKey": {"type": "http", "scheme": "bearer", "description": "the API_KEY"},
    "ApiKeyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": KEY_HEADER,
        "description": "the API_KEY, where a password in front of the service takes Authorization",
    },
}
"""Each of them is enough."""
[_REFUSAL] = described(Unauthorized).values()


def add_docs(app: FastAPI, key_needed: bool) -> None:
    """Let an application describe its routes; `key_needed` says that they want an API key."""
    app.include_router(router)
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_swagger", "resources")]))
    if key_needed:
        written = app.openapi
        app.openapi = lambda: _with_key(written())  # type: ignore[method-assign]


def _with_key(document: dict[str, Any]) -> dict[str, Any]:
    """Name the API key in an OpenAPI document, so that Swagger UI asks for it."""
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes.update(_SCHEMES)
    for path, operations in document["paths"].items():
        for operation in operations.values() if path != "/health" else ():
            operation["security"] = [{name: []} for name in _SCHEMES]
            operation["responses"]["401"] = _REFUSAL
    return document


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Return Swagger UI."""
    page = (_PAGES / "docs.html").read_text("utf-8").replace("__TITLE__", escape(request.app.title))
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """Return the script that starts it."""
    return Response((_PAGES / "docs.js").read_bytes(), media_type="text/javascript")
