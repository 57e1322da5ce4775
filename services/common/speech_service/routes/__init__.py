"""The routes, one module per family of clients."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from ..work.service import SpeechService


def _service(connection: HTTPConnection) -> SpeechService:
    service: SpeechService = connection.app.state.service
    return service


Service = Annotated[SpeechService, Depends(_service)]
"""Parameter of a route: the service it belongs to."""
