"""The page on which a visitor waits, in a real browser before a real proxy."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.ports import free_port
from tests.services.browser import DESK, PHONE, browser

HOST = "notes.localhost"

# Listens once the file `go` is there, or ends with 3 if `fail` is; writes down what it is asked.
PROGRAM = textwrap.dedent(
    """
    import pathlib, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    folder = pathlib.Path(sys.argv[2])
    with (folder / "starts").open("a") as starts:
        print("started", file=starts)
    while not (folder / "go").exists():
        if (folder / "fail").exists():
            sys.exit(3)
        time.sleep(0.02)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            with (folder / "asked").open("a") as asked:
                print(self.path, file=asked)
            body = b"<!doctype html><title>Notes</title><h1>Notes</h1>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
    """
)


class Stage:
    """A proxy whose one service shows the page to everybody, and can be let go or made to fail."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.folder = folder
        self.port, service = free_port(), free_port()
        program = folder / "program.py"
        program.write_text(PROGRAM)
        command = [sys.executable, str(program), str(service), str(folder)]
        unit = {"name": "Notes", "command": command, "proxyPort": service, "blocking": False}
        # /ready is no line that a visitor's browser would ask for.
        unit |= {"health": {"path": "/ready"}, **keys}
        config = {
            "listen": f"127.0.0.1:{self.port}",
            "controlSocket": str(folder / "c.sock"),
            "services": {HOST: unit},
        }
        (folder / "config.json").write_text(json.dumps(config))

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def go(self) -> None:
        (self.folder / "go").touch()

    def fail(self, failing: bool = True) -> None:
        if failing:
            (self.folder / "fail").touch()
        else:
            (self.folder / "fail").unlink()

    def asked(self) -> list[str]:
        """What visitors asked the service for."""
        file = self.folder / "asked"
        lines = file.read_text().split() if file.exists() else []
        return [line for line in lines if line not in ("/ready", "/favicon.ico")]

    def starts(self) -> int:
        file = self.folder / "starts"
        return len(file.read_text().split()) if file.exists() else 0

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def cli(self, *words: str) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "autostart_proxy", *words),
                *("--config", str(self.folder / "config.json")),
            ],
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr.decode()

    @contextmanager
    def running(self) -> Iterator[None]:
        config = str(self.folder / "config.json")
        command = [sys.executable, "-m", "autostart_proxy", "run", config]
        with (self.folder / "log").open("a") as log, subprocess.Popen(command, stderr=log) as proxy:
            try:
                until(lambda: "listening" in self.log)
                yield
            finally:
                proxy.terminate()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    with stage.running():
        yield stage


def heading(page: Page, words: str) -> None:
    expect(page.locator("h1")).to_have_text(words, timeout=15_000)


@pytest.mark.parametrize("script", [True, False])
def test_the_visitors_address_is_asked_for_once_and_shown_when_it_is_ready(
    stage: Stage, script: bool
) -> None:
    where = f"{stage.address}/deep/page?order=1&to=2"
    with browser(where, script=script) as page:
        heading(page, "Notes is waking up")
        time.sleep(3)  # it asks, but not for this
        heading(page, "Notes is waking up")
        assert stage.asked() == []
        stage.go()
        heading(page, "Notes")
        assert page.url == where
    assert stage.asked() == ["/deep/page?order=1&to=2"]
    assert stage.starts() == 1
    assert stage.log.count("status=503") == 1, "what the page asks is no line of the log"


@pytest.mark.parametrize("script", [True, False])
def test_a_failure_is_shown_and_tried_again_only_by_the_visitor(stage: Stage, script: bool) -> None:
    with browser(f"{stage.address}/page", script=script, screen=DESK) as page:
        heading(page, "Notes is waking up")
        stage.fail()
        heading(page, "Notes is not available")
        expect(page.locator("main")).to_contain_text("The service stopped while it was starting.")
        time.sleep(3)
        assert stage.starts() == 1, "nothing is tried by itself"
        page.get_by_role("link", name="Try again").click()
        until(lambda: stage.starts() == 2)
        heading(page, "Notes is not available")
        expect(page.locator("main")).to_contain_text("The next try is possible in")
        stage.fail(False)
        stage.go()
        time.sleep(2.5)
        page.get_by_role("link", name="Try again").click()
        heading(page, "Notes")
    assert stage.asked() == ["/page"]


def test_who_wakes_it_meanwhile_is_followed(stage: Stage) -> None:
    with browser(f"{stage.address}/page#chapter") as page:
        stage.fail()
        heading(page, "Notes is not available")
        stage.fail(False)
        stage.go()
        stage.cli("wake", HOST)
        heading(page, "Notes")
        assert page.url.endswith("/page#chapter")


def test_what_is_put_to_sleep_meanwhile_is_said(stage: Stage) -> None:
    with browser(stage.address) as page:
        heading(page, "Notes is waking up")
        stage.cli("sleep", HOST)
        heading(page, "Notes is asleep")
        stage.go()
        page.get_by_role("link", name="Wake it up").click()
        heading(page, "Notes")


def test_a_proxy_that_is_restarted_is_waited_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.running():
        running = browser(stage.address)
        page = running.__enter__()
        heading(page, "Notes is waking up")
    expect(page.get_by_text("The server does not answer at present.")).to_be_visible()
    stage.go()
    with stage.running():
        heading(page, "Notes is asleep")
        expect(page.get_by_text("The server does not answer at present.")).to_be_hidden()
        page.get_by_role("link", name="Wake it up").click()
        heading(page, "Notes")
        running.__exit__(None, None, None)


@pytest.mark.parametrize("screen", [PHONE, DESK])
def test_it_fits_the_screen(stage: Stage, screen: tuple[int, int]) -> None:
    with browser(stage.address, screen=screen) as page:
        heading(page, "Notes is waking up")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= screen[0]
        stage.fail()
        heading(page, "Notes is not available")
        box = page.get_by_role("link", name="Try again").bounding_box()
        assert box is not None and box["height"] >= 44
