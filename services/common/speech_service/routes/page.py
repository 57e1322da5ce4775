"""The page at `/`: choose or record audio, read the transcript."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from ..contract.engine import Abilities
from ..contract.errors import NotFound
from ..contract.languages import NAMES
from ..http.intake import Service

router = APIRouter()

# Everything the page needs is in it; it talks to its own service and to nobody else.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' blob:; "
    "connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


@cache
def _page(abilities: Abilities) -> str:
    text = (files("speech_service") / "pages" / "index.html").read_text("utf-8")
    by_name = sorted(NAMES.items(), key=lambda entry: entry[1])
    names = {code: name.capitalize() for code, name in by_name}
    text = text.replace("__FEATURES__", json.dumps(asdict(abilities)))
    return text.replace("__LANGUAGES__", json.dumps(names))


@router.get("/", include_in_schema=False)
async def page(service: Service) -> HTMLResponse:
    """Return the page, unless ENABLE_UI switches it off."""
    if not service.settings.enable_ui:
        raise NotFound("the page is switched off; /docs describes the API")
    page = _page(service.engine.abilities)
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})
