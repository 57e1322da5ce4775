"""What the proxy says in its own name: errors as JSON or HTML, and the waiting page. Pure.

Nothing here shows a path, an address or text that a client sent. Every response forbids caching,
and every 503 says when to come back. The pages themselves are handed in.
"""

from __future__ import annotations

import json
import re
from html import escape
from http import HTTPStatus
from string import Template

from autostart_proxy.errors import ProxyError, Starting

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def error_response(
    error: ProxyError,
    *,
    page: Template,
    request_id: str,
    accept: bytes,
    head_only: bool,
    close: bool,
) -> bytes:
    """Write an error as a complete message.

    Args:
        page: with places for `title`, `message`, `tag` and `request_id`.
        accept: the client's Accept field; HTML where it prefers that, JSON otherwise.
        head_only: leave the body out, as for HEAD.
        close: announce that the connection ends with this answer.
    """
    if prefers_html(accept):
        body = page.substitute(
            title=HTTPStatus(error.status).phrase,
            message=escape(error.public),
            tag=error.tag,
            request_id=escape(request_id),
        )
        media_type = "text/html; charset=utf-8"
    else:
        told = {"error": error.tag, "message": error.public, "request_id": request_id}
        body = json.dumps(told, ensure_ascii=False) + "\n"
        media_type = "application/json"
    return _message(error, media_type, body, request_id, head_only, close)


def waiting_page(
    error: Starting,
    *,
    page: Template,
    service: str,
    elapsed_seconds: int,
    last_start_seconds: float | None,
    request_id: str,
    head_only: bool,
    close: bool,
) -> bytes:
    """Write the page that a browser shows while the service starts, and that goes on by itself.

    Args:
        error: says when to come back; a page without script does by then.
        page: with places for `service`, `elapsed_seconds`, `refresh_seconds`, `last_start` and
            `request_id`.
        service: its name, as written in the configuration.
        elapsed_seconds: since the start began.
        last_start_seconds: what the last start took; None if that is not known.
    """
    body = page.substitute(
        service=escape(service),
        elapsed_seconds=elapsed_seconds,
        refresh_seconds=min(5, error.retry_after_seconds or 1),
        last_start=""
        if last_start_seconds is None
        else f"The last start took {max(1, round(last_start_seconds))} s.",
        request_id=escape(request_id),
    )
    return _message(error, "text/html; charset=utf-8", body, request_id, head_only, close)


def prefers_html(accept: bytes) -> bool:
    """Whether an Accept field names HTML and ranks it at least as high as JSON.

    `*/*` alone does not: it is what programs send (RFC 9110, section 12.5.1).
    """
    html = any_json = named_json = 0.0
    for part in accept.decode("latin-1").lower().split(","):
        media_type, _, parameters = part.partition(";")
        found = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters)
        quality = float(found[1]) if found else 1.0
        match media_type.strip():
            case "text/html" | "application/xhtml+xml":
                html = max(html, quality)
            case "application/json":
                named_json = quality
            case "application/*" | "*/*":
                any_json = max(any_json, quality)
            case _:
                pass
    return html > 0 and html >= (named_json or any_json)


def is_navigation(method: str, fetch_mode: bytes, accept: bytes) -> bool:
    """Whether a person looks at this: a browser that opens a page.

    Sec-Fetch-Mode decides where the browser sends it (Fetch Metadata, section 2.2).
    """
    if method not in ("GET", "HEAD"):
        return False
    return fetch_mode == b"navigate" if fetch_mode else prefers_html(accept)


def _message(
    error: ProxyError, media_type: str, body: str, request_id: str, head_only: bool, close: bool
) -> bytes:
    payload = body.encode()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"Content-Type: {media_type}\r\n"
        f"Content-Length: {len(payload)}\r\n"
        "Cache-Control: no-store\r\n"
        f"X-Request-ID: {request_id}\r\n"
        f"X-Autostart: {error.tag}\r\n"
    )
    if error.retry_after_seconds is not None:
        head += f"Retry-After: {error.retry_after_seconds}\r\n"
    if close:
        head += "Connection: close\r\n"
    return head.encode() + b"\r\n" + (b"" if head_only else payload)
