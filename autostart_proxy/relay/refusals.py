"""What the proxy itself answers a request: `wire.own_responses`, filled in."""

from __future__ import annotations

from autostart_proxy import errors, pages
from autostart_proxy.relay.peers import Service
from autostart_proxy.wire import own_responses
from autostart_proxy.wire.requests import Request

_ON_THE_WAY = frozenset(["adopting", "starting"])


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
        awaited: show the page that waits for this service in a browser, while it starts.
    """
    head_only = request.method == b"HEAD"
    if awaited is None or not isinstance(error, errors.Starting):
        return own_responses.error_response(
            error,
            page=pages.template("error.html"),
            request_id=request_id,
            accept=request.field(b"accept"),
            head_only=head_only,
            close=close,
        )
    status = awaited.status()
    return own_responses.waiting_page(
        error,
        page=pages.template("waiting.html"),
        service=awaited.config.name,
        elapsed_seconds=int(status.since_seconds) if status.state in _ON_THE_WAY else 0,
        last_start_seconds=status.last_start_seconds,
        request_id=request_id,
        head_only=head_only,
        close=close,
    )


def is_navigation(request: Request) -> bool:
    """Whether a person looks at the answer."""
    return own_responses.is_navigation(
        request.method.decode(), request.field(b"sec-fetch-mode"), request.field(b"accept")
    )
