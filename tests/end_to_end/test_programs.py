"""Programs with a key and people with a password, at one address: Nginx, the proxy, real clients.

The services are the speech engine as a plain process, asleep until somebody is let in; `locked` has
an API key of its own behind the site's password.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from playwright.sync_api import BrowserContext, Page, Route, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.end_to_end.parts import COMMAND, PASSWORD, ROOT, USER, installed, run
from tests.end_to_end.stage import Stage, sign_certificate, staged  # noqa: F401 - fixture
from tests.nginx_site import reloading
from tests.ports import free_port
from tests.services.browser import SITES_HERE, launched

HOST = "whisper.example.org"
LOCKED = "locked.example.org"
SERVICE_KEY = "s3cret/(+)="
SPEECH = ROOT / "tests" / "speech"
RECORDING = SPEECH / "samples" / "english.wav"
TEXT: str = next(
    sample["text"]
    for sample in json.loads((SPEECH / "samples" / "samples.json").read_text())
    if sample["file"] == RECORDING.name
)
README = (ROOT / "README.md").read_text()
SECTION = re.split(r"^## ", README.partition("\n## Let programs in\n")[2], flags=re.MULTILINE)[0]


def engine(folder: Path, **environment: str) -> dict[str, Any]:
    """A service of `config.json`: the speech engine, with the model that was trained for tests."""
    port = free_port()
    settings = {
        "UVICORN_PORT": str(port),
        "WHISPER__MODEL": str(SPEECH / "model"),
        "WHISPER__CPU_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        **environment,
    }
    command = [sys.executable, "-m", "faster_whisper_engine"]
    return {"command": command, "env": settings, "proxyPort": port, "startTimeout": "60s"}


@pytest.fixture(scope="module")
def stage(
    certificate: tuple[Path, ssl.SSLContext], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("programs")
    with staged(folder, certificate) as stage, pytest.MonkeyPatch.context() as patched:
        services = stage.proxy.config["services"]
        services[HOST] = engine(folder)
        services[LOCKED] = engine(folder, API_KEY=SERVICE_KEY)
        stage.start()
        (folder / "nginx" / "autostart-proxy").mkdir()
        # `nginx` means this one, also for `key add --reload`.
        shim = folder / "bin" / "nginx"
        shim.parent.mkdir()
        mine = [installed("nginx"), "-e", "stderr", "-c", str(folder / "nginx" / "nginx.conf")]
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(mine)} "$@"\n')
        shim.chmod(0o755)
        patched.setenv("PATH", str(shim.parent), prepend=":")
        for trusted in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patched.setenv(trusted, str(certificate[0] / "fullchain.pem"))
        yield stage


@pytest.fixture(scope="module")
def key(stage: Stage) -> str:
    """A key that Nginx knows."""
    with reloading(stage.folder / "nginx" / "pid"):
        return run(COMMAND, "key", "add", "tests", "--reload", "--file", keys_of(stage))


def keys_of(stage: Stage) -> Path:
    return stage.folder / "nginx" / "autostart-proxy" / "keys.conf"


def address(stage: Stage, host: str = HOST) -> str:
    return f"https://{host}:{stage.nginx.port}"


def get(stage: Stage, path: str, key: str, host: str = HOST) -> requests.Response:
    """What a program does that has one field for a key."""
    bearer = {"Authorization": f"Bearer {key}"}
    return requests.get(address(stage, host) + path, headers=bearer, timeout=60)


def official(stage: Stage, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address(stage)}/v1", api_key=key, max_retries=0)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


# Programs.


def test_a_program_with_one_field_for_a_key_wakes_the_service_and_is_served(
    stage: Stage, key: str
) -> None:
    stage.proxy.command("sleep", HOST)
    stage.proxy.until(HOST, state="stopped")
    with RECORDING.open("rb") as recording:
        answer = requests.post(
            f"{address(stage)}/v1/audio/transcriptions",
            headers={"Authorization": f"Bearer {key}"},
            files={"file": recording},
            data={"model": "whisper-1"},
            timeout=60,
        )
    assert words(answer.json()["text"]) == words(TEXT)


def test_without_a_key_nobody_wakes_anything(stage: Stage, key: str) -> None:
    stage.proxy.command("sleep", LOCKED)
    stage.proxy.until(LOCKED, state="stopped")
    for wrong in ("sk-proj-1", key[:-1], SERVICE_KEY):
        refused = get(stage, "/v1/models", wrong, LOCKED)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
    assert stage.proxy.status(LOCKED)["state"] == "stopped"


def test_the_openai_client_shows_what_nginx_says(stage: Stage) -> None:
    with (
        official(stage, "sk-wrong") as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list()
    assert refused.value.code == "invalid_api_key"
    assert "autostart-proxy key add NAME" in refused.value.message
    assert refused.value.request_id


# The client opens its socket in a way that the library under it calls deprecated.
@pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning")
def test_the_openai_client_listens_live(stage: Stage, key: str) -> None:
    with (
        official(stage, key) as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        assert connection.recv().type == "session.created"


def test_a_websocket_opens_with_a_key_and_not_without(stage: Stage, key: str) -> None:
    url = f"{address(stage)}/v1/realtime?intent=transcription".replace("https", "wss")
    context = stage.through_nginx.context
    for headers, protocols in (
        ({"Authorization": f"Bearer {key}"}, ["realtime"]),
        ({}, ["realtime", f"openai-insecure-api-key.{key}", "openai-beta.realtime-v1"]),
    ):
        offered = [Subprotocol(name) for name in protocols]
        with connect(
            url, ssl=context, additional_headers=headers, subprotocols=offered, proxy=None
        ) as socket:
            assert socket.subprotocol == "realtime"
            assert json.loads(socket.recv(60))["type"] == "session.created"
    for headers in ({}, {"Authorization": f"Bearer {key}x"}):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(url, ssl=context, additional_headers=headers, proxy=None),
        ):
            pass
        assert refused.value.response.status_code == 401


def test_a_service_with_a_key_of_its_own_gets_it_beside_that_of_the_site(
    stage: Stage, key: str
) -> None:
    url = f"{address(stage, LOCKED)}/v1/models"
    bearer = {"Authorization": f"Bearer {key}"}
    refused = requests.get(url, headers=bearer, timeout=60)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    for mine in (bearer, {"Authorization": stage.through_nginx.headers()["Authorization"]}):
        answer = requests.get(url, headers={**mine, "X-Api-Key": SERVICE_KEY}, timeout=60)
        assert answer.status_code == 200


# People, in a real browser.


@contextmanager
def browsing(*flags: str) -> Iterator[BrowserContext]:
    """A browser without any password, which takes any certificate."""
    with launched("--ignore-certificate-errors", *SITES_HERE, *flags) as running:
        yield running.new_context(permissions=["microphone"])


def enter(page: Page, stage: Stage, host: str) -> None:
    """Open a site as somebody does who has typed the password into the browser's question."""
    page.goto(f"https://{USER}:{PASSWORD.replace(' ', '%20')}@{host}:{stage.nginx.port}/")


def test_a_page_with_a_key_of_its_own_works_behind_the_password(stage: Stage) -> None:
    hears = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={RECORDING}",
    )
    with browsing(*hears) as context:
        page = context.new_page()
        enter(page, stage, LOCKED)
        expect(page.locator("#status")).to_have_text("This service wants an API key.")
        page.fill("#key", SERVICE_KEY)
        page.click("#lock button")
        expect(page.locator("#status")).to_be_empty()
        page.set_input_files("#file", RECORDING)
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("Done in", timeout=60_000)
        assert words(page.locator("#out").inner_text()) == words(TEXT)
        page.click("#record")
        expect(page.locator("#status")).to_have_text("Listening…", timeout=60_000)
        expect(page.locator("#out")).to_contain_text(words(TEXT)[1], timeout=60_000)
        page.click("#record")
        expect(page.locator("#status")).to_have_text("Done.", timeout=60_000)


def test_a_browser_asks_for_the_password_and_shows_a_page_where_it_gets_none(stage: Stage) -> None:
    with browsing() as context:
        page = context.new_page()
        asked: list[dict[str, Any]] = []
        wire = context.new_cdp_session(page)

        def cancel(event: dict[str, Any]) -> None:
            asked.append(event["authChallenge"])
            answer = {"response": "CancelAuth"}
            wire.send(
                "Fetch.continueWithAuth",
                {"requestId": event["requestId"], "authChallengeResponse": answer},
            )

        def pass_on(event: dict[str, Any]) -> None:
            wire.send("Fetch.continueRequest", {"requestId": event["requestId"]})

        wire.on("Fetch.authRequired", cancel)
        wire.on("Fetch.requestPaused", pass_on)
        wire.send("Fetch.enable", {"handleAuthRequests": True})
        page.goto(address(stage))
        expect(page.locator("h1")).to_have_text("Password needed")
        assert [(each["scheme"], each["realm"]) for each in asked] == [("basic", "autostart")]
        for width in (390, 1200):
            page.set_viewport_size({"width": width, "height": 700})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("text=Try again")
        expect(page.locator("h1")).to_have_text("Password needed")
        assert len(asked) == 2


def test_a_page_without_the_password_opens_a_websocket_with_a_key(stage: Stage, key: str) -> None:
    def blank(route: Route) -> None:
        route.fulfill(body="<!doctype html>", content_type="text/html")

    url = f"{address(stage)}/v1/realtime?intent=transcription".replace("https", "wss")
    opened = """([url, protocols]) => new Promise((told) => {
        const socket = new WebSocket(url, protocols);
        socket.onmessage = ({ data }) => told([socket.protocol, JSON.parse(data).type]);
        socket.onclose = () => told("refused");
    })"""
    with browsing() as context:
        page = context.new_page()
        page.route("**/blank", blank)
        page.goto(f"{address(stage)}/blank")
        right = ["realtime", f"openai-insecure-api-key.{key}"]
        assert page.evaluate(opened, [url, right]) == ["realtime", "session.created"]
        assert page.evaluate(opened, [url, [*right[:1], f"{right[1]}x"]]) == "refused"


# What the README says.


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def test_the_readme_lets_programs_in(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands as they stand, but for port, key and where the keys are."""
    (tmp_path / "speech.wav").write_bytes(RECORDING.read_bytes())
    monkeypatch.chdir(tmp_path)
    make, use, end = blocks("sh")
    [client] = blocks("python")

    def shell(commands: str) -> str:
        to = f"{HOST}:443:127.0.0.1:{stage.nginx.port}"
        here = f"""
            set -e
            sudo() {{ "$@"; }}
            autostart-proxy() {{ {COMMAND} "$@" --file {keys_of(stage)}; }}
            curl() {{ command curl -fsS --connect-to {to} "$@"; }}
        """
        return run("bash", "-c", f"{here}\n{commands}", folder=tmp_path)

    with reloading(stage.folder / "nginx" / "pid"):
        key, head, *rows = shell(make).splitlines()
    assert head.split() == ["NAME", "ADDED"]
    assert "open-webui" in [row.split()[0] for row in rows]
    assert words(json.loads(shell(filled_in(use, key)))["text"]) == words(TEXT)

    monkeypatch.setenv("OPENAI_API_KEY", key)
    with redirect_stdout(io.StringIO()) as said:
        exec(client.replace(f"https://{HOST}", address(stage)), {})
    assert words(said.getvalue()) == words(TEXT)

    with reloading(stage.folder / "nginx" / "pid"):
        assert shell(end) == "open-webui: removed"
    assert get(stage, "/health", key).status_code == 401


def filled_in(commands: str, key: str) -> str:
    assert "autostart_open-webui_..." in commands
    return commands.replace("autostart_open-webui_...", key)


def test_without_the_proxy_the_openai_client_is_told(stage: Stage, key: str) -> None:
    assert stage.proxy.end(signal.SIGTERM) == 0
    with official(stage, key) as client, pytest.raises(openai.InternalServerError) as failed:
        client.models.list()
    assert (failed.value.status_code, failed.value.code) == (502, "bad_gateway")
    stage.proxy.start()
