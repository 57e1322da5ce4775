"""Pages of other sites and services under other names, over real sockets and in a real browser."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from ... import media
from ...browser import SITES_HERE, launched
from ...harness import FakeEngine, serve

EVIL = "http://evil.test"
CROSS = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty"}
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
IN_FRAME = {**LINK, "sec-fetch-dest": "iframe"}
PROXIED = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}


def origin_of(http: httpx.Client) -> str:
    return str(http.base_url).rstrip("/")


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with serve() as http:
        yield http


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, None),
        ({"sec-fetch-site": "same-origin"}, None),
        ({"sec-fetch-site": "none"}, None),
        (CROSS, "cross_site"),
        ({"sec-fetch-site": "same-site"}, "cross_site"),
        ({"sec-fetch-site": "new-word"}, "cross_site"),
        (LINK, None),
        (IN_FRAME, "cross_site"),
        ({"origin": EVIL}, "cross_site"),
        ({"origin": "null"}, "cross_site"),
        ({"origin": ""}, "cross_site"),
        ({"origin": "chrome-extension://abcdefgh"}, "cross_site"),
        ({"origin": "http://localhost:1"}, "cross_site"),
        ({"origin": "http://127.0.0.1"}, "cross_site"),
        ({"origin": "http://127.0.0.1:x"}, "cross_site"),
        ({**CROSS, "origin": EVIL}, "cross_site"),
        ({"origin": EVIL, "sec-fetch-site": "same-origin"}, None),
        ({"host": "rebound.example"}, "unknown_host"),
        ({"host": "127.0.0.1.rebound.example"}, "unknown_host"),
        ({"host": "me@localhost"}, "unknown_host"),
        ({"host": "localhost:0"}, "unknown_host"),
        ({"host": "10.0.0.1"}, None),
        ({"host": "10.0.0.1.rebound.example"}, "unknown_host"),
        ({"host": "localhost"}, None),
        ({"host": "LOCALHOST.:1234"}, None),
        ({"host": "127.1.2.3:80"}, None),
        ({"host": "[::1]:80"}, None),
        ({"host": "whisper.example.org", **PROXIED}, None),
        ({"host": "whisper.example.org:8443", **PROXIED}, None),
    ],
    ids=str,
)
def test_who_is_let_in(http: httpx.Client, headers: dict[str, str], code: str | None) -> None:
    answer = http.get("/v1/models", headers=headers)
    assert answer.status_code == (403 if code else 200)
    if code:
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert "ALLOW_" in error["message"], "the cure"


@pytest.mark.parametrize("mark", ["x-forwarded-for", "x-forwarded-proto", "via", "forwarded"])
def test_no_page_can_pretend_to_come_through_a_proxy(http: httpx.Client, mark: str) -> None:
    """Its script may set headers, but not the port that the browser writes into Host."""
    port = http.base_url.port
    for host, status in ((f"rebound.example:{port}", 403), ("whisper.example.org", 200)):
        headers = {"host": host, mark: "for=192.0.2.7"}
        assert http.get("/v1/models", headers=headers).status_code == status


SITE = "whisper.example.org"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": f"https://{SITE}", "host": SITE}, 200),
        ({"origin": f"https://{SITE.upper()}", "host": SITE}, 200),
        ({"origin": f"https://{SITE}", "host": f"{SITE}:443"}, 200),
        ({"origin": f"https://{SITE}:8443", "host": SITE, "x-forwarded-port": "8443"}, 200),
        ({"origin": f"https://{SITE}:8443", "host": SITE}, 403),
        ({"origin": f"https://{SITE}", "x-forwarded-host": f"{SITE}, inner"}, 200),
        ({"origin": f"https://{SITE}", "x-forwarded-host": "other.example"}, 403),
        ({"origin": f"http://{SITE}", "host": SITE}, 403),
        ({"origin": f"http://{SITE}", "host": SITE, "x-forwarded-proto": "wss"}, 403),
        ({"origin": f"http://{SITE}", "host": SITE, "x-forwarded-proto": "http"}, 200),
        ({"origin": f"https://{SITE}.evil.test", "host": SITE}, 403),
        ({"origin": f"https://evil.test/{SITE}", "host": SITE}, 403),
    ],
    ids=str,
)
def test_behind_a_proxy_the_own_origin_is_that_of_the_site(
    http: httpx.Client, headers: dict[str, str], status: int
) -> None:
    answer = http.post("/api/ps/tiny", headers=PROXIED | headers)
    assert answer.status_code in ((201, 409) if status == 200 else (403,))


def test_origins_and_hosts_can_be_allowed() -> None:
    with serve(allow_origins=["https://page.example/"], allow_hosts=["NAS.local"]) as http:
        page = {"origin": "https://page.example"}
        assert http.get("/v1/models", headers={**CROSS, **page}).status_code == 200
        assert http.get("/v1/models", headers={**CROSS, "origin": EVIL}).status_code == 403
        port = http.base_url.port
        assert http.get("/v1/models", headers={"host": f"nas.local:{port}"}).status_code == 200
        assert http.get("/v1/models", headers={"host": f"other:{port}"}).status_code == 403
    with serve(allow_origins=["*"]) as http:
        assert http.get("/v1/models", headers={**CROSS, "origin": EVIL}).status_code == 200


def test_elsewhere_than_on_the_loopback_hosts_are_asked_for_where_they_are_listed() -> None:
    with serve(host="0.0.0.0") as http:
        assert http.get("/v1/models", headers={"host": "faster-whisper:8000"}).status_code == 200
    with serve(host="0.0.0.0", allow_hosts=["faster-whisper"]) as http:
        for headers, status in (
            ({"host": "faster-whisper:8000"}, 200),
            ({}, 200),
            ({"host": "whisper.example.org"}, 403),
            ({"host": "whisper.example.org", **PROXIED}, 403),
        ):
            assert http.get("/v1/models", headers=headers).status_code == status


def test_what_is_published_on_the_loopback_is_on_the_loopback() -> None:
    """As the shipped Compose files have it; the port is not the one that browsers connect to."""
    with serve(host="0.0.0.0", published_on="127.0.0.1") as http:
        for headers, status in (
            ({"host": "rebound.example"}, 403),
            ({"host": "rebound.example:8001"}, 403),
            ({"host": "rebound.example:8001", **PROXIED}, 403),
            ({"host": "127.0.0.1:8001"}, 200),
            ({"host": "localhost:8001"}, 200),
            ({"host": "172.17.0.2:8000"}, 200),
            ({"host": "faster-whisper:8000"}, 200),
            ({"host": "whisper.example.org", **PROXIED}, 200),
            ({"host": "whisper.example.org:443", **PROXIED}, 200),
        ):
            assert http.get("/v1/models", headers=headers).status_code == status, headers
    with serve(host="0.0.0.0", published_on="[::1]") as http:
        assert http.get("/v1/models", headers={"host": "rebound.example:8001"}).status_code == 403
    with serve(host="0.0.0.0", published_on="0.0.0.0") as http:
        assert http.get("/v1/models", headers={"host": "nas.local:8001"}).status_code == 200


def test_a_key_needs_no_origin() -> None:
    """No browser brings it unasked."""
    with serve(api_key="s3cret") as http:
        evil = {**CROSS, "origin": EVIL, "host": "rebound.example"}
        key = {"authorization": "Bearer s3cret"}
        assert http.get("/v1/models", headers=evil).status_code == 403
        assert http.get("/v1/models", headers=evil | key).status_code == 200


def test_a_program_may_be_older_than_hosts(http: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0)) as old:
        old.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert old.recv(100).split()[1] == b"200"


@pytest.mark.parametrize("path", ["/", "/v1/realtime", "/v1/audio/transcriptions"])
def test_a_websocket_is_refused_before_it_is_accepted(http: httpx.Client, path: str) -> None:
    url = origin_of(http).replace("http", "ws", 1) + path
    with pytest.raises(InvalidStatus) as refused:
        connect(url, origin=Origin(EVIL), proxy=None)
    assert refused.value.response.status_code == 403
    assert b'"cross_site"' in (refused.value.response.body or b"")
    with connect(url, origin=Origin(origin_of(http)), proxy=None):
        pass
    with connect(url, proxy=None):
        pass


@contextmanager
def page_of(origin: str) -> Iterator[Page]:
    """An empty page of an origin."""
    with launched(*SITES_HERE) as running:
        page = running.new_page()

        def empty(route: Route) -> None:
            route.fulfill(body="<!doctype html><title>page</title>", content_type="text/html")

        page.route(f"{origin}/page", empty)
        page.goto(f"{origin}/page")
        yield page


SEND_FILE = """async ([url, mode, talk]) => {
  const form = new FormData();
  form.append("file", new Blob([new Uint8Array(talk)]), "talk.wav");
  try {
    const answer = await fetch(url, {method: "POST", mode, credentials: "same-origin", body: form});
    return answer.type === "opaque" ? "opaque" : String(answer.status);
  } catch (error) {
    return "blocked";
  }
}"""
SUBMIT = """(url) => {
  document.body.innerHTML = `<form method=post action="${url}" enctype=multipart/form-data>
    <input name=file value=x></form>`;
  document.forms[0].submit();
}"""
LISTEN = """(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
})"""
READ = """async (url) => {
  const answer = await fetch(url, {headers: {"X-Forwarded-For": "192.0.2.7"}});
  return [answer.status, await answer.text()];
}"""


def arguments(http: httpx.Client, mode: str) -> list[Any]:
    return [f"{origin_of(http)}/v1/audio/transcriptions", mode, list(media.tone(1.0))]


@pytest.mark.parametrize("origin", [EVIL, "http://127.0.0.1:9"])
def test_a_page_of_another_site_can_do_nothing(origin: str) -> None:
    """Also one of the same site, which is another port of the same machine."""
    engine = FakeEngine()
    with serve(engine) as http, page_of(origin) as page:
        asked: list[int] = []
        page.on("response", lambda response: asked.append(response.status))
        for mode in ("no-cors", "cors"):
            assert page.evaluate(SEND_FILE, arguments(http, mode)) in ("opaque", "blocked")
        ws = origin_of(http).replace("http", "ws", 1)
        for path in ("/", "/v1/realtime?intent=transcription", "/v1/audio/transcriptions"):
            assert page.evaluate(LISTEN, ws + path) == "refused"
        with page.expect_navigation():
            page.evaluate(SUBMIT, f"{origin_of(http)}/api/ps/org/small")
        assert "cross_site" in page.content()
        assert engine.asked == []
        assert engine.loads == ["tiny"], "the one that was loaded at the start"
        assert asked.count(403) == len(asked) >= 2, "it was this service that refused them"
        page.goto(f"{origin_of(http)}/health")
        assert page.inner_text("body") == "OK"


def test_a_link_from_another_site_may_be_followed(http: httpx.Client) -> None:
    with page_of(EVIL) as page:
        page.evaluate(f"document.body.innerHTML = '<a href=\"{origin_of(http)}/docs\">docs</a>'")
        with page.expect_navigation():
            page.click("a")
        page.wait_for_selector(".swagger-ui")


def test_a_name_that_was_made_to_lead_here_opens_nothing(http: httpx.Client) -> None:
    rebound = f"http://rebound.test:{http.base_url.port}"
    with page_of(rebound) as page:
        for path in ("/v1/models", "/metrics"):
            status, text = page.evaluate(READ, rebound + path)
            assert (status, "unknown_host" in text) == (403, True)
        url = f"{rebound}/v1/audio/transcriptions"
        assert page.evaluate(SEND_FILE, [url, "cors", []]) == "403"
        assert page.evaluate(LISTEN, rebound.replace("http", "ws", 1) + "/") == "refused"


def test_an_allowed_site_and_the_own_one_may_do_all() -> None:
    with serve(allow_origins=[EVIL]) as http:
        for origin in (EVIL, origin_of(http)):
            with page_of(origin) as page:
                assert page.evaluate(SEND_FILE, arguments(http, "cors")) == "200"
                ws = origin_of(http).replace("http", "ws", 1)
                assert page.evaluate(LISTEN, ws + "/") == "open"
