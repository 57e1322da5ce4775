"""Several sites of the shipped Nginx files: a name that no site let in reaches no service.

Whatever a client writes as its host, a site forwards its own name; so its password, or its having
none, opens the services of no other name.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.nginx_site import (  # noqa: F401 - fixtures
    HOST,
    LIMIT_SECONDS,
    PASSWORD,
    Site,
    running,
    sign_certificates,
)

OPEN = "open.example.org"  # its site asks for no password
SECOND = "second.example.org"  # a further name of that site
HIDDEN = ["stt.example.org", "internal.example.org"]  # in config.json alone: an alias, a service
CLOSED = [HOST, *HIDDEN]

Head = dict[str, list[str]]


def values(head: str) -> Head:
    found: Head = {}
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


@pytest.fixture(name="arrived")
async def start_upstream(unused_tcp_port: int) -> AsyncIterator[list[Head]]:
    """The heads of all that Nginx hands on, as they come."""
    heads: list[Head] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(values(head.decode().removesuffix("\r\n\r\n")))
                path = head.split()[1]
                more = ACCEL if path == b"/accel" else b""
                writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: 5\r\n\r\nits\r\n" % more)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", unused_tcp_port):
        yield heads


@pytest.fixture(params=[True, False], ids=["default site", "no default site"])
async def sites(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    certificates: Path,
    arrived: list[Head],
    unused_tcp_port: int,
) -> AsyncIterator[Site]:
    """Nginx with the shipped site and one without a password, which comes first of all."""
    site = Site(tmp_path, certificates, unused_tcp_port)
    folder = tmp_path / "sites-available"
    shipped = (folder / "whisper.example.org.conf").read_text()
    names = f"server_name {OPEN} {SECOND};"
    opened = shipped.replace(f"server_name {HOST};", names).replace(
        "include snippets/basic-auth.conf;", ""
    )
    (folder / "aaa.conf").write_text(opened)
    if not request.param:
        (folder / "autostart-default.conf").unlink()
    async with running(site, certificates):
        yield site


@asynccontextmanager
async def line(
    site: Site, name: str, protocol: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the TLS port, whose handshake is for `name`, while the patience lasts."""
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    trust.set_alpn_protocols([protocol])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.https, ssl=trust, server_hostname=name
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield reader, writer
    finally:
        writer.close()


async def say(site: Site, name: str, head: str) -> bytes:
    """Send a request and no more after it; what comes back."""
    async with line(site, name, "http/1.1") as (reader, writer):
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()


SPELLINGS = [
    "{}", "{}.", "{}:443", "{}.:443", "{}:", "{}:99999", " {} ", "\t{}", "https://{}", "{}/", "/{}",
    "x@{}", "{}@x", "x:y@{}", "{}, OPEN", "OPEN, {}", "OPEN,{}", "OPEN {}", "{} OPEN", "{}#OPEN",
    "{}?OPEN", "OPEN\\{}", "OPEN:{}", "[{}]", "*.{}", "", "_", "127.0.0.1", "[::1]",
]  # fmt: skip


def heads(name: str) -> list[str]:
    """Request heads that mean, or might be taken to mean, a name."""
    spelled = [spelling.replace("OPEN", OPEN).format(name) for spelling in SPELLINGS]
    spelled += [name.upper(), name.title(), name.replace(".", "%2e"), name.replace("e", "\u0435")]
    found = [f"GET / HTTP/1.1\r\nHost: {each}" for each in spelled]
    for target in (
        f"https://{name}/",
        f"http://{name}:80/",
        f"HTTP://{name.upper()}./",
        f"//{name}/",
    ):
        found += [f"GET {target} HTTP/1.1\r\nHost: {host}" for host in (name, OPEN, HOST, "")]
        found.append(f"GET {target} HTTP/1.0")
    for one, other in ((OPEN, name), (name, OPEN)):
        found += [
            f"GET / HTTP/1.1\r\nHost: {one}\r\nHost: {other}",
            f"GET / HTTP/1.1\r\nHost: {one}\r\n {other}",
            f"GET / HTTP/1.1\r\nHost: {one}\r\nhost : {other}",
            f"GET https://{one}/ HTTP/1.1\r\nHost: {other}",
            f"GET / HTTP/1.1\r\nHost: {one}\r\nX-Forwarded-Host: {other}\r\nX-Host: {other}"
            f"\r\nX-Original-Host: {other}\r\nForwarded: host={other}\r\nX_Forwarded_Host: {other}",
            f"GET / HTTP/1.1\r\nHost: {one}\r\nConnection: Host, X-Forwarded-Host\r\nX: {other}",
        ]
    found += ["GET / HTTP/1.0", f"OPTIONS * HTTP/1.1\r\nHost: {name}"]
    return found


@pytest.mark.parametrize("met", [OPEN, HOST])
async def test_a_name_without_a_site_reaches_no_service_by_http_1(
    sites: Site, arrived: list[Head], met: str
) -> None:
    """Nor does the name of a site that asks for a password, without one."""
    for name in CLOSED:
        for head in heads(name):
            await say(sites, met, head)
    assert {host for head in arrived for host in head["host"]} == {OPEN}
    assert {host for head in arrived for host in head["x-forwarded-host"]} == {OPEN}


async def test_a_password_opens_the_name_of_its_own_site_alone(
    sites: Site, arrived: list[Head]
) -> None:
    for name in HIDDEN:
        for each in heads(name):
            await say(sites, HOST, f"{each}\r\nAuthorization: {PASSWORD}")
    assert {host for head in arrived for host in head["host"]} <= {OPEN, HOST}
    arrived.clear()
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {PASSWORD}"
    assert b"200 OK" in await say(sites, HOST, request)
    assert [head["host"] + head["x-forwarded-host"] for head in arrived] == [[HOST, HOST]]


# HTTP/2, as far as it takes to ask: RFC 9113, section 4.1; RFC 7541, section 6.2.2.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    """A field in as plain a form as there is: nothing is indexed, nothing compressed."""
    return b"\0" + b"".join(bytes([len(x)]) + x for x in (name.encode(), value.encode()))


async def say_http2(site: Site, met: str, *requests: list[tuple[str, str]]) -> None:
    """Send requests on one connection, and wait until each has been answered or refused."""
    async with line(site, met, "h2") as (reader, writer):
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        for number, fields in enumerate(requests):
            section = b"".join(literal(name, value) for name, value in fields)
            writer.write(frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, section))
        missing = len(requests)
        while missing:
            head = await reader.readexactly(9)
            kind, flags = head[3:5]
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            assert kind != GOAWAY, "one of the requests ended the connection for the others"
            missing -= kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)


@pytest.mark.parametrize("met", [OPEN, HOST])
@pytest.mark.parametrize("password", ["", PASSWORD])
async def test_a_name_without_a_site_reaches_no_service_by_http_2(
    sites: Site, arrived: list[Head], met: str, password: str
) -> None:
    asking = [(":method", "GET"), (":scheme", "https"), (":path", "/")]
    bringing = [("authorization", password)] if password else []
    for name in HIDDEN if password else CLOSED:
        spelled = [each.replace("OPEN", OPEN).format(name) for each in SPELLINGS]
        # An empty name ends the connection, and so proves nothing of the others.
        for each in filter(None, [*spelled, name.upper()]):
            named = (
                [(":authority", each)],
                [("host", each)],
                [(":authority", OPEN), ("host", each)],
                [(":authority", each), ("host", OPEN)],
                [("host", OPEN), ("host", each)],
            )
            await say_http2(sites, met, *([*asking, *fields, *bringing] for fields in named))
    assert {host for head in arrived for host in head["host"]} == {OPEN}
    arrived.clear()
    wanted = [(":authority", HOST), ("authorization", PASSWORD)]
    await say_http2(sites, HOST, [*asking, *wanted])
    assert [head["host"] for head in arrived] == [[HOST]]


async def test_a_further_name_of_a_site_is_forwarded_as_its_first(
    sites: Site, arrived: list[Head]
) -> None:
    await say(sites, SECOND, f"GET / HTTP/1.1\r\nHost: {SECOND}")
    assert [head["host"] for head in arrived] == [[OPEN]]


async def test_plain_http_sends_nobody_to_a_name_that_the_client_made_up(sites: Site) -> None:
    for head in heads("evil.example"):
        reader, writer = await asyncio.open_connection("127.0.0.1", sites.http)
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(LIMIT_SECONDS):
            answer = await reader.read()
        writer.close()
        for where in re.findall(rb"(?i)\r\nlocation: *(\S+)", answer):
            assert re.match(rb"https://(open|whisper)\.example\.org/", where), head


# What a service may not have Nginx do.

ACCEL = (
    b"X-Accel-Redirect: /elsewhere\r\nX-Accel-Expires: 9\r\nX-Accel-Limit-Rate: 1\r\n"
    b"X-Accel-Buffering: yes\r\nX-Accel-Charset: koi8-r\r\nContent-Type: text/plain\r\n"
)


async def test_a_service_tells_nginx_nothing(sites: Site, arrived: list[Head]) -> None:
    answer = await say(sites, OPEN, f"GET /accel HTTP/1.1\r\nHost: {OPEN}")
    assert answer.endswith(b"\r\n\r\nits\r\n")
    assert b"x-accel" not in answer.lower()
    assert b"koi8" not in answer
    assert len(arrived) == 1
