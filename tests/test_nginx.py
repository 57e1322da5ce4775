"""The shipped Nginx files on a real Nginx, with an echo in the proxy's place."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.ports import free_port

SHIPPED = Path(__file__).parent.parent / "nginx"
HOST = "whisper.example.org"
PORTAL = "https://portal.example.org"
LIMIT_SECONDS = 20
PASSWORD = "Basic " + base64.b64encode(b"you:secret").decode()

MAIN = """\
daemon off;
pid nginx.pid;
error_log error.log info;
worker_processes 1;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include conf.d/*.conf;
    include sites-available/*.conf;
}
"""


def nginx() -> str:
    found = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no nginx command", pytrace=False)
        pytest.skip("there is no nginx command")
    return found


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("letsencrypt")
    live = folder / "live" / HOST
    live.mkdir(parents=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "1", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
        + ["-keyout", str(live / "privkey.pem"), "-out", str(live / "fullchain.pem")],
        check=True,
        capture_output=True,
    )
    return folder


class Site:
    """An Nginx with the shipped files, moved to a folder and to ports of its own."""

    def __init__(self, folder: Path, certificates: Path, upstream: int) -> None:
        self.folder = folder
        self.http, self.https = free_port(), free_port()
        moves = {
            "/etc/letsencrypt": str(certificates),
            "/var/www/html": str(folder / "www"),
            "127.0.0.1:8890": f"127.0.0.1:{upstream}",
            "listen      80;": f"listen 127.0.0.1:{self.http};",
            "listen      443 ssl": f"listen 127.0.0.1:{self.https} ssl",
            # Not every machine that runs tests has IPv6.
            "listen      [::]:80;": "",
            "listen      [::]:443 ssl http2;": "",
        }
        # A worker of another user could not look into the folders of a test that root runs.
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(user + MAIN)
        # htpasswd -nbs you secret; Nginx reads this without the libraries that bcrypt takes.
        (folder / "htpasswd").write_text("you:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
        seen = set()
        for file in SHIPPED.rglob("*.conf"):
            text = file.read_text()
            for old, new in moves.items():
                if old in text:
                    seen.add(old)
                    text = text.replace(old, new)
            target = folder / file.relative_to(SHIPPED)
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
        assert seen == moves.keys(), "the shipped files have changed: move their new paths too"

    @property
    def command(self) -> list[str]:
        return [nginx(), "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """Answers each request with its head, as JSON; listens where the proxy would."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *fields = head.decode().strip().split("\r\n")
                body = json.dumps({"": line, **dict(x.lower().split(": ", 1) for x in fields)})
                writer.write(
                    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body.encode())
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def site(tmp_path: Path, certificates: Path, echo: int) -> Site:
    return Site(tmp_path, certificates, echo)


@pytest.fixture
async def client(site: Site, certificates: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Speaks TLS to a running Nginx as to the real host, and checks its certificate."""
    process = await asyncio.create_subprocess_exec(*site.command)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", site.https)
                except OSError:
                    assert process.returncode is None, (site.folder / "error.log").read_text()
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        trust = ssl.create_default_context(cafile=certificates / "live" / HOST / "fullchain.pem")
        connector = aiohttp.TCPConnector(ssl=trust, resolver=Loopback())
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session
    finally:
        process.terminate()
        await process.wait()


class Loopback(aiohttp.abc.AbstractResolver):
    """Every host is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return [
            aiohttp.abc.ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        pass


def test_nginx_finds_nothing_wrong_with_the_shipped_files(site: Site) -> None:
    done = subprocess.run([*site.command, "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.replace('http2" directive is deprecated', "")


async def test_the_proxy_learns_who_asked_and_never_the_password(
    site: Site, client: aiohttp.ClientSession
) -> None:
    spoofed = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "gopher"}
    async with client.get(
        f"https://{HOST}:{site.https}/a?b=c", headers={"Authorization": PASSWORD, **spoofed}
    ) as answer:
        seen = await answer.json(content_type=None)
    assert seen[""] == "GET /a?b=c HTTP/1.1"
    assert "authorization" not in seen
    assert seen["host"] == seen["x-forwarded-host"] == HOST
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.1"
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("https", str(site.https))
    assert len(seen["x-request-id"]) == 32
    assert "connection" not in seen


async def test_without_password_nobody_passes(site: Site, client: aiohttp.ClientSession) -> None:
    wrong = "Basic " + base64.b64encode(b"you:wrong").decode()
    for headers in ({}, {"Authorization": wrong}, {"Authorization": "Bearer x"}):
        async with client.get(f"https://{HOST}:{site.https}/", headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_an_upgrade_is_passed_on(site: Site, client: aiohttp.ClientSession) -> None:
    headers = {"Authorization": PASSWORD, "Upgrade": "websocket", "Connection": "Upgrade"}
    async with client.get(f"https://{HOST}:{site.https}/", headers=headers) as answer:
        seen = await answer.json(content_type=None)
    assert (seen["upgrade"], seen["connection"]) == ("websocket", "upgrade")


async def test_the_portals_pages_may_call_and_others_may_not(
    site: Site, client: aiohttp.ClientSession
) -> None:
    url = f"https://{HOST}:{site.https}/v1/audio/transcriptions"
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with client.options(url, headers={"Origin": PORTAL, **asked}) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PORTAL
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    for origin in ("https://evil.example", "null", f"{PORTAL}.evil.example"):
        async with client.options(url, headers={"Origin": origin, **asked}) as answer:
            assert answer.status == 401
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_page_of_the_portal_can_read_answers_and_refusals(
    site: Site, client: aiohttp.ClientSession
) -> None:
    url = f"https://{HOST}:{site.https}/"
    for password, status in ((PASSWORD, 200), ("", 401)):
        headers = {"Origin": PORTAL, "Authorization": password}
        async with client.get(url, headers=headers) as answer:
            assert answer.status == status
            # One header, though the service sends one of its own.
            assert answer.headers.getall("Access-Control-Allow-Origin") == [PORTAL]
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    async with client.get(url, headers={"Authorization": PASSWORD}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_plain_http_renews_certificates_and_sends_the_rest_to_https(
    site: Site, client: aiohttp.ClientSession
) -> None:
    challenge = site.folder / "www" / ".well-known" / "acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("proof")
    plain = f"http://{HOST}:{site.http}"
    async with client.get(f"{plain}/.well-known/acme-challenge/token") as answer:
        assert (answer.status, await answer.text()) == (200, "proof")
    async with client.post(f"{plain}/a?b=c", data=b"x", allow_redirects=False) as answer:
        assert answer.status == 308
        assert answer.headers["Location"] == f"https://{HOST}/a?b=c"


async def test_a_body_reaches_the_proxy_before_it_is_complete(
    site: Site, client: aiohttp.ClientSession
) -> None:
    """The echo answers as soon as it has the head; the body here never ends by itself."""
    complete = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await complete.wait()

    async with asyncio.timeout(LIMIT_SECONDS):
        async with client.post(
            f"https://{HOST}:{site.https}/", data=body(), headers={"Authorization": PASSWORD}
        ) as answer:
            assert answer.status == 200
        complete.set()


async def test_a_body_of_500_mb_is_let_through_and_a_larger_one_is_not(
    site: Site, client: aiohttp.ClientSession
) -> None:
    """Nginx counts in MiB. What a client announces decides; nothing of it has to be sent."""
    for length, status in ((500 * 2**20, b"200"), (500 * 2**20 + 1, b"413")):
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", site.https, ssl=trust, server_hostname=HOST
        )
        writer.write(
            f"POST / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {PASSWORD}\r\n"
            f"Content-Length: {length}\r\n\r\n".encode()
        )
        async with asyncio.timeout(LIMIT_SECONDS):
            assert (await reader.readline()).split()[1] == status
        writer.close()
