"""What the proxy itself answers a request: `wire.own_responses`, filled in."""

from __future__ import annotations

from autostart_proxy import errors, pages
from autostart_proxy.relay.peers import Service
from autostart_proxy.relay.waiting import waiting_page
from autostart_proxy.wire import own_responses
from autostart_proxy.wire.requests import Request


def refusal(
    error: errors.ProxyError,
    request: Request,
    request_id: bytes,
    awaited: Service | None,
    *,
    close: bool,
) -> bytes:
    """Write an error in the form that the client prefers.

    Args:
        awaited: show the page on which a browser waits for this service, or sees why it cannot.
    """
    if awaited is not None and isinstance(error, errors.Starting | errors.OperationError):
        return waiting_page(error, request, request_id, awaited, close=close)
    return own_responses.error_response(
        error,
        page=pages.template("error.html"),
        request_id=request_id,
        accept=request.field(b"accept"),
        head_only=request.method == b"HEAD",
        close=close,
    )


def is_navigation(request: Request) -> bool:
    """Whether a person looks at the answer."""
    return own_responses.is_navigation(
        request.method.decode(), request.field(b"sec-fetch-mode"), request.field(b"accept")
    )
