"""A real browser, and a proxy that shows the service below a path."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PHONE, DESK = (390, 780), (1200, 900)
"""Sizes of the screen."""


def chromium() -> str:
    """The path of a Chromium; without one the test is skipped, or fails where `CI` is set."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("needs Chromium: apt-get install chromium", pytrace=False)
    pytest.skip("needs Chromium")


SITES_HERE = (
    "--host-resolver-rules=MAP *.example.org 127.0.0.1, MAP *.test 127.0.0.1",
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
)
"""Names of sites lead to this machine, and nobody is asked before pages reach it: not all browsers
ask."""


@contextmanager
def launched(*flags: str) -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--no-proxy-server", *flags]
        )
        yield running
        running.close()


@contextmanager
def browser(
    address: str, *flags: str, screen: tuple[int, int] = PHONE, script: bool = True
) -> Iterator[Page]:
    """A page that has loaded an address.

    The test fails if a script of the page fails, if its content security policy is broken, or if
    anything is asked of another host.
    """
    with launched(*flags) as running:
        width, height = screen
        context = running.new_context(
            viewport={"width": width, "height": height},
            permissions=["microphone"],
            java_script_enabled=script,
        )
        page = context.new_page()
        faults: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: faults.append(said.text) if "Security Policy" in said.text else None,
        )
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        yield page
        assert faults == []
        own = (str(httpx.URL(address).join("/")), "data:", "blob:")
        assert [url for url in requests if not url.startswith(own)] == []


@contextmanager
def below(http: httpx.Client, path: str) -> Iterator[str]:
    """The address of a proxy that shows a service below a path, and takes the path away."""

    class Proxy(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            answer = http.request(
                self.command,
                self.path.removeprefix(path),
                content=self.rfile.read(length),
                headers=dict(self.headers),
            )
            inside = self.path.startswith(f"{path}/")
            self.send_response(answer.status_code if inside else 404)
            for name in ("content-type", "content-security-policy"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{path}"
        finally:
            server.shutdown()
            thread.join()
