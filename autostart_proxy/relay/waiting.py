"""The page on which a visitor waits for a service, and the answers to what it asks."""

from __future__ import annotations

from autostart_proxy import errors, pages
from autostart_proxy.relay.peers import Service
from autostart_proxy.wire import own_responses, waiting
from autostart_proxy.wire.requests import Request
from autostart_proxy.wire.waiting import Outlook

_ASKS = frozenset([b"GET", b"HEAD"])
_HTML = "text/html; charset=utf-8"


def outlook(service: Service) -> Outlook:
    """How a service is doing, for whoever waits for it."""
    status, name = service.status(), service.config.name
    match status.state:
        case "ready":
            return waiting.ready(name)
        case "stopped" | "failed" | "stopping" if status.message is not None:
            return waiting.failed(name, status.message, status.retry_in_seconds or 0.0)
        case "stopped" | "failed":
            return waiting.asleep(name)
        case "starting" | "adopting":
            return waiting.waking(name, status.since_seconds, status.last_start_seconds)
        case _:  # it is being stopped, and is started again for whoever waits
            return waiting.waking(name, 0.0, status.last_start_seconds)


def waiting_page(
    error: errors.ProxyError, request: Request, request_id: bytes, service: Service, *, close: bool
) -> bytes:
    """Answer a visitor whose request does not wait.

    Args:
        error: what a program would get; the page has its status.
    """
    return own_responses.response(
        error.status,
        error.tag,
        _HTML,
        _written(service, outlook(service), waiting.local_target(request.target), request_id),
        request_id=request_id,
        retry_after_seconds=error.retry_after_seconds,
        head_only=request.method == b"HEAD",
        close=close,
    )


def own_answer(
    request: Request, request_id: bytes, service: Service, *, close: bool
) -> bytes | None:
    """Answer a request for one of the proxy's own paths; None where it is none.

    It is no use of the service, and wakes nobody.
    """
    path = request.target.partition(b"?")[0]
    if request.method not in _ASKS or request.fields.has_body:
        return None
    now = outlook(service)
    status, media_type, location = 200, _HTML, None
    if path == waiting.STATE_PATH:
        media_type, body = "application/json", now.as_json()
    elif path == waiting.PAGE_PATH:
        target = waiting.target_of_page(request.target)
        body = _written(service, now, target, request_id)
        if now.state == "ready":
            status, location = 303, target
    else:
        return None
    return own_responses.response(
        status,
        now.state,
        media_type,
        body,
        request_id=request_id,
        location=location,
        head_only=request.method == b"HEAD",
        close=close,
    )


def _written(service: Service, now: Outlook, target: str, request_id: bytes) -> str:
    return waiting.page(
        pages.template("waiting.html"),
        now,
        target=target,
        host=service.host,
        request_id=request_id.decode(),
    )
