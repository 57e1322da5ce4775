"""What the proxy says in its own name: errors as JSON or HTML, and whole messages. Pure.

Nothing here shows a path, an address or text that a client sent. Every response forbids caching,
and every 503 says when to come back. The pages themselves are handed in. What is said is written
once and remembered but for the request id: a flood of refused requests must cost little.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from html import escape
from http import HTTPStatus
from string import Template
from typing import NamedTuple

from autostart_proxy.errors import ProxyError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_ACCEPT_LIMIT_BYTES = 1024
_MEDIA_TYPE_LIMIT = 32
_PLACE = "{request id}"


def error_response(
    error: ProxyError,
    *,
    page: Template,
    request_id: bytes,
    accept: bytes,
    head_only: bool,
    close: bool,
) -> bytes:
    """Write an error as a complete message.

    Args:
        page: with places for `title`, `message`, `tag` and `request_id`.
        request_id: holds nothing that HTML or JSON would have to escape, as `requests` has it.
        accept: the client's Accept field; HTML where it prefers that, JSON otherwise.
        head_only: leave the body out, as for HEAD.
        close: announce that the connection ends with this answer.
    """
    form = _error_form(
        error.status,
        error.tag,
        error.public,
        error.retry_after_seconds,
        page if prefers_html(accept) else None,
        close,
    )
    return form.filled_in(request_id, head_only=head_only)


def response(
    status: int,
    tag: str,
    media_type: str,
    body: str,
    *,
    request_id: bytes,
    head_only: bool,
    close: bool,
    retry_after_seconds: int | None = None,
    location: str | None = None,
) -> bytes:
    """Write anything else as a complete message.

    Args:
        tag: for `X-Autostart`.
        location: where the client should go on (RFC 9110, section 10.2.2); as it stands in a URL.
    """
    form = _form(status, tag, retry_after_seconds, media_type, body, close, location)
    return form.filled_in(request_id, head_only=head_only)


def prefers_html(accept: bytes) -> bool:
    """Whether an Accept field names HTML and ranks it at least as high as JSON.

    `*/*` alone does not: it is what programs send (RFC 9110, section 12.5.1). A field that is
    longer than any browser's is read in part.
    """
    accept = accept[:_ACCEPT_LIMIT_BYTES].lower()
    return b"html" in accept and _ranks_html_first(accept)


@lru_cache(maxsize=256)
def _ranks_html_first(accept: bytes) -> bool:
    html = any_json = named_json = 0.0
    for part in accept.decode("latin-1").split(",")[:_MEDIA_TYPE_LIMIT]:
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


class _Form(NamedTuple):
    """A response that is written but for the request id."""

    head: bytes
    body: tuple[bytes, ...]

    def filled_in(self, request_id: bytes, *, head_only: bool) -> bytes:
        body = request_id.join(self.body)
        head = self.head % (len(body), request_id)
        return head if head_only else head + body


@lru_cache(maxsize=256)
def _error_form(
    status: int, tag: str, message: str, retry_after: int | None, page: Template | None, close: bool
) -> _Form:
    if page is not None:
        media_type = "text/html; charset=utf-8"
        body = page.substitute(
            title=HTTPStatus(status).phrase, message=escape(message), tag=tag, request_id=_PLACE
        )
    else:
        media_type = "application/json"
        told = {"error": tag, "message": message, "request_id": _PLACE}
        body = json.dumps(told, ensure_ascii=False) + "\n"
    return _form(status, tag, retry_after, media_type, body, close)


def _form(
    status: int,
    tag: str,
    retry_after: int | None,
    media_type: str,
    body: str,
    close: bool,
    location: str | None = None,
) -> _Form:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: {media_type}\r\n"
        "Content-Length: %d\r\n"
        "Cache-Control: no-store\r\n"
        "X-Request-ID: %b\r\n"
        f"X-Autostart: {tag}\r\n"
    )
    if retry_after is not None:
        head += f"Retry-After: {retry_after}\r\n"
    if location is not None:
        head += f"Location: {location.replace('%', '%%')}\r\n"
    if close:
        head += "Connection: close\r\n"
    return _Form(head.encode() + b"\r\n", tuple(body.encode().split(_PLACE.encode())))
