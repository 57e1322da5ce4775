"""What a visitor sees while a service starts, and where the page asks how it goes. Pure.

The page never asks for the visitor's own address again before the service is ready: it asks at
paths of the proxy's own, which wake nobody and are no use of the service, and goes on once. Without
script it is a page at such a path that reloads itself. A start that has failed is not tried again
by the page, but by the visitor who presses its button.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from html import escape
from string import Template
from urllib.parse import quote, unquote

OWN_PATHS = b"/.well-known/autostart-proxy/"
"""Where all paths of the proxy's own begin; no service gets to see them (RFC 8615)."""

STATE_PATH = OWN_PATHS + b"state"
PAGE_PATH = OWN_PATHS + b"waiting"

_TO = re.compile(rb"to=([^&]*)")
_LOCAL = re.compile(r"/(?![/\\])[!-~]*")
_LONGEST_TARGET = 4096
_REFRESH_SECONDS = 2
"""How often a page without script asks."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a service is doing, in words for whoever waits for it.

    `state` is `waking`, `ready`, `failed` or `asleep`; in the last two nothing happens before
    somebody presses the button that says `action`. `elapsed_seconds` is how long it has been waking
    up, `expected_seconds` what the last start took (None: there was none), `retry_seconds` how long
    the next start has to wait.
    """

    state: str
    headline: str
    words: str
    action: str = ""
    elapsed_seconds: float = 0.0
    expected_seconds: float | None = None
    retry_seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.state in ("failed", "asleep")

    def as_json(self) -> str:
        """For the page's script."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def waking(name: str, elapsed_seconds: float, expected_seconds: float | None) -> Outlook:
    """The service is on its way."""
    words = "It sleeps when nobody uses it. This page goes on by itself as soon as it is ready."
    if expected_seconds is not None:
        words += f" The last start took {max(1, round(expected_seconds))} s."
    return Outlook(
        "waking",
        f"{name} is waking up",
        words,
        elapsed_seconds=elapsed_seconds,
        expected_seconds=expected_seconds,
    )


def ready(name: str) -> Outlook:
    """There is nothing to wait for any more."""
    return Outlook("ready", f"{name} is ready", "This page goes on now.")


def failed(name: str, message: str, retry_seconds: float) -> Outlook:
    """The last start did not succeed."""
    return Outlook(
        "failed", f"{name} is not available", message, "Try again", retry_seconds=retry_seconds
    )


def asleep(name: str) -> Outlook:
    """It sleeps, and nobody is waking it."""
    return Outlook("asleep", f"{name} is asleep", "It sleeps when nobody uses it.", "Wake it up")


def page(template: Template, outlook: Outlook, *, target: str, host: str, request_id: str) -> str:
    """Write the page.

    Args:
        template: `waiting.html`.
        target: where the visitor wants to go, as a local path (`local_target`).
        request_id: to tell whoever runs the server.
    """
    query = quote(target, safe="") if len(target) <= _LONGEST_TARGET else "%2F"
    again = f"{_REFRESH_SECONDS};url={PAGE_PATH.decode()}?to={query}"
    wait = math.ceil(outlook.retry_seconds)
    return template.substitute(
        refresh=""
        if outlook.over
        else f'<noscript><meta http-equiv="refresh" content="{again}"></noscript>',
        state=outlook.state,
        headline=escape(outlook.headline),
        words=escape(outlook.words),
        action=escape(outlook.action),
        due=f"The next try is possible in {wait} s." if wait > 0 else "",
        choice_hidden="" if outlook.over else " hidden",
        to=escape(target),
        elapsed_seconds=outlook.elapsed_seconds,
        expected_seconds=outlook.expected_seconds or 0,
        retry_seconds=outlook.retry_seconds,
        host=escape(host),
        request_id=escape(request_id),
        state_path=STATE_PATH.decode(),
    )


def local_target(target: bytes) -> str:
    """Return a request's target as a path of the same site; `/` where it is none.

    `//` begins another site's address, and so does `/\\` to browsers (WHATWG URL, 4.4).
    """
    text = quote(target, safe="!$%&'()*+,/:;=?@[]~#")
    return text if _LOCAL.fullmatch(text) else "/"


def target_of_page(target: bytes) -> str:
    """Return where a page at `PAGE_PATH` leads on to, as `local_target` does."""
    found = _TO.search(target.partition(b"?")[2])
    return local_target(unquote(found[1], "latin-1").encode("latin-1")) if found else "/"
