"""The shipped Nginx and the proxy's relay, one behind the other: what passes both."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from autostart_proxy.wire.heads import FIELD_LINE_LIMIT_BYTES
from tests.nginx_site import (  # noqa: F401 - fixtures
    CLAIMS,
    HOST,
    LIMIT_SECONDS,
    PASSWORD,
    Site,
    running,
    sign_certificates,
)
from tests.relay.wire import Line, Message, Relay, access_log, read_message, relaying

REQUESTS = {
    "a long line": [("Cookie", "a=" + "x" * (FIELD_LINE_LIMIT_BYTES - 10))],
    "many lines": [(f"X-{number}", "x" * 3900) for number in range(16)],
    "many cookies": [("Cookie", f"session.{number}=" + "x" * 3900) for number in range(8)],
}
RESPONSES = {
    "a long line": [("Set-Cookie", "a=" + "x" * (FIELD_LINE_LIMIT_BYTES - 14))],
    "many cookies": [("Set-Cookie", f"session.{number}=" + "x" * 3900) for number in range(16)],
    "almost too large": [(f"X-{number}", "x" * 32_700) for number in range(2)],
}


def lines_of(fields: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()


@pytest.fixture(name="whole")
async def start_both(tmp_path: Path, certificates: Path) -> AsyncIterator[tuple[Site, Relay]]:
    """Nginx, the proxy's relay, and a service that responds with the fields that its path names."""

    async def respond(line: Line) -> None:
        while True:
            path = (await line.head()).first.split()[1].decode()
            fields = RESPONSES.get(path[1:].replace("-", " "), [])
            await line.send(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % lines_of(fields))

    async with relaying(script=respond) as relay:
        relay.service.host = HOST
        site = Site(tmp_path, certificates, int(relay.address.rpartition(":")[2]))
        async with running(site, certificates):
            yield site, relay


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize(
    ("sent", "said"),
    [*((each, "nothing") for each in REQUESTS), *(("nothing", each) for each in RESPONSES)],
)
async def test_heads_as_large_as_the_proxy_takes_them_pass_both(
    whole: tuple[Site, Relay], version: str, sent: str, said: str
) -> None:
    site, _ = whole
    got = await curl(site, version, f"/{said.replace(' ', '-')}", REQUESTS.get(sent, []))
    assert got.status == 200
    told = [(name.title(), value) for name, value in got.fields]
    assert set(RESPONSES.get(said, [])) <= set(told)


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("--http1.1", [(f"X-{number}", "x" * 9000) for number in range(8)]),
        ("--http1.1", [(f"X-{number}", "x") for number in range(201)]),
        ("--http2", [("Cookie", f"session.{number}=" + "x" * 3900) for number in range(9)]),
        ("--http2", [(f"X-{number}", "x") for number in range(201)]),
    ],
)
async def test_what_is_too_large_is_refused_by_the_proxy_and_told(
    whole: tuple[Site, Relay],
    caplog: pytest.LogCaptureFixture,
    version: str,
    fields: list[tuple[str, str]],
) -> None:
    site, _ = whole
    caplog.set_level("INFO")
    got = await curl(site, version, "/large?a=b", fields)
    assert (got.status, json.loads(got.body)["error"]) == (431, "headers_too_large")
    [told] = access_log(caplog)
    assert (told["method"], told["path"], told["host"]) == ("GET", "/large", HOST)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_what_a_client_claims_of_its_way_passes_neither_nginx_nor_the_proxy(
    tmp_path: Path, certificates: Path, version: str
) -> None:
    """Nginx drops names one by one; of those that begin as the proxy's own it knows no list."""
    seen: list[Message] = []

    async def respond(line: Line) -> None:
        seen.append(await line.head())
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    claims = [*CLAIMS, "X-Forwarded-Whatever", "X_Forwarded_For", "X.Forwarded-For"]
    claims += ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto"]
    async with relaying(script=respond) as relay:
        relay.service.host = HOST
        site = Site(tmp_path, certificates, int(relay.address.rpartition(":")[2]))
        async with running(site, certificates):
            got = await curl(site, version, "/", [(name, "claim") for name in claims])
    assert got.status == 200
    [head] = seen
    assert "claim" not in [value for _, value in head.fields]
    assert {name.lower() for name, _ in head.fields if "forwarded" in name.lower()} == {
        f"x-forwarded-{known}" for known in ("for", "host", "port", "proto")
    }


async def curl(site: Site, version: str, path: str, fields: Iterable[tuple[str, str]]) -> Message:
    lines = site.folder / "fields"
    lines.write_bytes(lines_of([("Authorization", PASSWORD), *fields]))
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sSki", version, "--resolve", f"{HOST}:{site.https}:127.0.0.1"),
        *("-H", f"@{lines}", f"https://{HOST}:{site.https}{path}"),
        stdout=subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        said, _ = await process.communicate()
    assert process.returncode == 0
    head, _, body = said.partition(b"\r\n\r\n")
    message = read_message(head)
    message.body = body
    return message
