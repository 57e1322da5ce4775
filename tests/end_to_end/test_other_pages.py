"""Pages of other sites in a visitor's browser, before the shipped Nginx files and the proxy.

The visitor has logged in, so his browser would send the password with whatever such a page asks.
The service echoes, as a plain process; what has reached it is what the proxy's log says.
"""

from __future__ import annotations

import re
import signal
import ssl
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from autostart_proxy.commands.keys import KeyFile
from tests.end_to_end.parts import PASSWORD, PROGRAM, USER
from tests.end_to_end.stage import Stage, sign_certificate, staged  # noqa: F401 - fixture
from tests.nginx_site import reloading
from tests.ports import free_port
from tests.services.browser import SITES_HERE, launched
from tests.services.web import web

HOST = "service.example.org"
UNGUARDED = "unguarded.example.org"  # its site leaves the snippet out
PORTAL = "portal.example.org"
STRANGERS = ["evil.test", "neighbour.example.org"]  # another site; another origin of the same site

FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        return [answer.type, answer.status, await answer.text()];
    } catch {
        return "refused";
    }
}"""
SOCKET = """([url, protocols]) => new Promise((told) => {
    const socket = new WebSocket(url, protocols);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = ({ data }) => told(data);
    socket.onclose = () => told("refused");
})"""
FORM = """(url) => {
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: url, enctype: "text/plain" });
    document.body.append(form);
    form.submit();
}"""
EMBED = """([tag, url]) => new Promise((told) => {
    const embedded = document.createElement(tag);
    embedded.onload = embedded.onerror = () => told();
    embedded[tag === "object" ? "data" : "src"] = url;
    document.body.append(embedded);
})"""
LINK = """(url) => {
    const link = document.createElement("a");
    Object.assign(link, { href: url, textContent: "a link" });
    document.body.append(link);
}"""


class Blank(BaseHTTPRequestHandler):
    """Any page of anybody."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>page</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Scene:
    """The stage, and a web server that has a page for every other name."""

    stage: Stage
    pages: int

    def at(self, host: str, path: str = "/") -> str:
        port = self.stage.nginx.port if host in (HOST, UNGUARDED) else self.pages
        return f"https://{host}:{port}{path}"

    def socket(self, host: str) -> str:
        return self.at(host, "/socket").replace("https", "wss")

    def reached(self, path: str) -> list[str]:
        """The methods of what has come to a service under a path that only one test uses.

        Lines are written in order: whatever came before this call has its line before the last one.
        """
        last = f"/asked-{uuid.uuid4().hex}"
        assert self.stage.through_nginx.get(HOST, last).status == 200
        self.stage.proxy.log.until(f" path={last} ")
        found = self.stage.proxy.log.find(rf" method=(\S+) path={re.escape(path)} ")
        return [each[1] for each in found]

    def echo(self, folder: Path) -> dict[str, object]:
        """A service of `config.json`."""
        port = free_port()
        command = [sys.executable, str(PROGRAM), str(folder), str(port)]
        return {"command": command, "proxyPort": port}


@pytest.fixture(scope="module")
def scene(
    certificate: tuple[Path, ssl.SSLContext], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("pages")
    for allowed in ("listen", "end"):
        (folder / allowed).touch()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate[0] / "fullchain.pem", certificate[0] / "privkey.pem")
    with staged(folder, certificate) as stage, web(Blank, tls) as pages:
        scene = Scene(stage, int(pages.rpartition(":")[2]))
        for host in (HOST, UNGUARDED):
            stage.proxy.config["services"][host] = scene.echo(folder)
        stage.start()
        yield scene


@pytest.fixture(scope="module")
def key(scene: Scene) -> str:
    """A key that Nginx knows; and from now on it knows the portal, and the unguarded site is."""
    nginx = scene.stage.folder / "nginx"
    (nginx / "autostart-proxy").mkdir()
    made = KeyFile(nginx / "autostart-proxy" / "keys.conf").add("tests", date(2026, 8, 1))
    line = "include snippets/autostart-same-origin.conf;"
    for file, old, new in (
        ("conf.d/autostart-proxy.conf", f"https://{PORTAL}", scene.at(PORTAL).rstrip("/")),
        (f"sites-enabled/{UNGUARDED}.conf", line, ""),
    ):
        text = (nginx / file).read_text()
        assert old in text
        (nginx / file).write_text(text.replace(old, new))
    with reloading(nginx / "pid"):
        scene.stage.nginx.signal(signal.SIGHUP)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with launched("--ignore-certificate-errors", *SITES_HERE) as running:
        yield running.new_context()


@contextmanager
def visiting(scene: Scene, browser: BrowserContext, whose: str) -> Iterator[Page]:
    """Somebody's page, opened by a visitor who has given his password to both services."""
    page = browser.new_page()
    for host in (HOST, UNGUARDED):
        login = f"{USER}:{PASSWORD.replace(' ', '%20')}@"
        response = page.goto(scene.at(host).replace("https://", f"https://{login}"))
        assert response is not None and response.status == 200
    page.goto(scene.at(whose))
    yield page
    page.close()


@pytest.mark.parametrize("whose", STRANGERS)
def test_a_stranger_has_nothing_done_with_the_visitors_password(
    scene: Scene, key: str, browser: BrowserContext, whose: str
) -> None:
    sent = {"method": "POST", "credentials": "include", "body": "x"}
    with visiting(scene, browser, whose) as page:
        for options in ({**sent, "mode": "no-cors"}, sent, {"credentials": "include"}):
            page.evaluate(FETCH, [scene.at(HOST, f"/fetch-{whose}"), options])
        assert page.evaluate(SOCKET, [scene.socket(HOST), []]) == "refused"
        for tag in ("img", "iframe", "script", "object", "embed"):
            page.evaluate(EMBED, [tag, scene.at(HOST, f"/embed-{whose}")])
        page.evaluate(FORM, scene.at(HOST, f"/form-{whose}"))
        expect(page.locator("h1")).to_have_text("Not from another page")
    assert scene.reached(f"/fetch-{whose}") == []
    assert scene.reached(f"/embed-{whose}") == []
    assert scene.reached(f"/form-{whose}") == []


@pytest.mark.parametrize("whose", STRANGERS)
def test_where_the_snippet_is_left_out_the_password_goes_with_a_strangers_form(
    scene: Scene, key: str, browser: BrowserContext, whose: str
) -> None:
    """What the snippet is for; and that the test above would see it."""
    with visiting(scene, browser, whose) as page:
        page.evaluate(FORM, scene.at(UNGUARDED, f"/form-unguarded-{whose}"))
        page.wait_for_url("**/form-unguarded-*")
    assert scene.reached(f"/form-unguarded-{whose}") == ["POST"]


@pytest.mark.parametrize("whose", STRANGERS)
def test_a_strangers_link_is_followed(
    scene: Scene, key: str, browser: BrowserContext, whose: str
) -> None:
    with visiting(scene, browser, whose) as page:
        page.evaluate(LINK, scene.at(HOST, f"/link-{whose}"))
        with page.expect_navigation() as followed:
            page.click("text=a link")
        assert followed.value.status == 200
    assert scene.reached(f"/link-{whose}") == ["GET"]


def test_a_key_that_a_page_brings_counts_whose_page_it_is(
    scene: Scene, key: str, browser: BrowserContext
) -> None:
    with visiting(scene, browser, STRANGERS[0]) as page:
        brought = ["realtime", f"openai-insecure-api-key.{key}"]
        assert page.evaluate(SOCKET, [scene.socket(HOST), brought]) == "hello"
        wrong = ["realtime", f"openai-insecure-api-key.{key}x"]
        assert page.evaluate(SOCKET, [scene.socket(HOST), wrong]) == "refused"


@pytest.mark.parametrize("whose", [HOST, PORTAL])
def test_the_sites_own_pages_and_the_portals_ask_for_everything(
    scene: Scene, key: str, browser: BrowserContext, whose: str
) -> None:
    with visiting(scene, browser, whose) as page:
        sent = {"method": "POST", "credentials": "include", "body": "x"}
        url = scene.at(HOST, f"/own-{whose}")
        kind = "basic" if whose == HOST else "cors"
        assert page.evaluate(FETCH, [url, sent]) == [kind, 200, "x"]
        assert page.evaluate(SOCKET, [scene.socket(HOST), []]) == "hello"
        page.evaluate(FORM, url)
        page.wait_for_url(f"**/own-{whose}")
    assert scene.reached(f"/own-{whose}") == ["POST", "POST"]
