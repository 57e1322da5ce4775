"""Nginx with the shipped files, in a folder and on ports of its own, before an echo.

Test modules import the fixtures by the names of their functions.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from autostart_proxy.commands.keys import KeyFile
from tests.ports import free_port

SHIPPED = Path(__file__).parent.parent / "nginx"
HOST = "whisper.example.org"
PASSWORD = "Basic " + base64.b64encode(b"you:secret").decode()
CLAIMS = [
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-By",
    "X-Forwarded-Server",
    "X-Forwarded-Prefix",
    "X-Forwarded-Path",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Scheme",
    "X-Forwarded-Protocol",
    "X-Forwarded-Ssl",
    "X-Forwarded-User",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Tls-Client-Cert",
    "Remote-User",
    "Remote-Name",
    "Remote-Email",
    "Remote-Groups",
    "X-Remote-User",
    "X-Remote-Email",
    "X-Remote-Group",
    "X-Remote-Groups",
    "X-Authenticated-User",
    "X-WebAuth-User",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Access-Token",
    "X-Auth-Request-Preferred-Username",
    "X-Client-Cert",
    "X-SSL-Client-Cert",
    "X-SSL-Client-Verify",
    "X-SSL-Client-DN",
    "SSL-Client-Cert",
    "Client-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Original-For",
    "X-ProxyUser-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "X-Scheme",
    "X-Url-Scheme",
    "Front-End-Https",
    "X-Host",
    "X-Original-Host",
    "X-Original-Proto",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Script-Name",
    "X-Sendfile-Type",
    "X-Accel-Mapping",
]
"""Headers that only a gate, or a proxy in front, may set."""
LIMIT_SECONDS = 20

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


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module", name="certificates")
def sign_certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> dict[str, Any]:
        """The head that the echo got, or what Nginx says."""
        told: dict[str, Any] = json.loads(self.body)
        return told


class Site:
    """An Nginx with the shipped files, moved to a folder and to ports of its own."""

    def __init__(self, folder: Path, certificates: Path, upstream: int) -> None:
        self.folder = folder
        self.http, self.https = free_port(), free_port()
        six = "[::1]" if has_ipv6() else "127.0.0.2"  # not every machine that runs tests has IPv6
        moves = {
            "/etc/letsencrypt": str(certificates),
            "/var/www/html": str(folder / "www"),
            "127.0.0.1:8890": f"127.0.0.1:{upstream}",
            "listen      80": f"listen 127.0.0.1:{self.http}",
            "listen      443": f"listen 127.0.0.1:{self.https}",
            "listen      [::]:80": f"listen {six}:{self.http}",
            "listen      [::]:443": f"listen {six}:{self.https}",
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

        (folder / "autostart-proxy").mkdir()
        self.keys = KeyFile(folder / "autostart-proxy" / "keys.conf")

    def change(self, file: str, old: str, new: str) -> None:
        """Change a file as an operator would, before Nginx is started."""
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

    async def ask(self, client: aiohttp.ClientSession, path: str = "/", **headers: str) -> Response:
        """Send a request; `_` in names of headers stands for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"https://{HOST}:{self.https}{path}"
        async with client.get(url, headers=fields) as answer:
            return Response(answer.status, answer.headers, await answer.text())

    def put_on_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have `nginx` mean this one."""
        command = self.folder / "bin" / "nginx"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.join(self.command)} "$@"\n')
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(command.parent), prepend=":")

    @property
    def command(self) -> list[str]:
        return [nginx(), "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]


@contextmanager
def reloading(pid_file: Path) -> Iterator[None]:
    """Have Nginx told to read its files again, and wait until all of it has: for a moment workers
    that know the old ones and workers that know the new ones take connections side by side."""
    before = _accepting(pid_file)
    yield
    deadline = time.monotonic() + LIMIT_SECONDS
    while before & _accepting(pid_file):
        assert time.monotonic() < deadline, "Nginx goes on with its old workers"
        time.sleep(0.01)


def _accepting(pid_file: Path) -> set[str]:
    """The workers of an Nginx, but for those that only finish what they have begun."""
    master = pid_file.read_text().strip()
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return {worker for worker in workers if "shutting down" not in _title(worker)}


def _title(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "shutting down"


@pytest.fixture(name="echo")
async def start_echo() -> AsyncIterator[int]:
    """Answers each request with its head, as JSON; listens where the proxy would.

    A request for `/status/N` gets that status, one for `/hang-up` or `/silence` nothing.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *fields = head.decode().strip().split("\r\n")
                body = json.dumps({"": line, **dict(x.lower().split(": ", 1) for x in fields)})
                match line.split()[1].split("/"):
                    case ["", "status", number]:
                        status = int(number)
                    case ["", "hang-up"]:
                        break
                    case ["", "silence"]:
                        continue
                    case _:
                        status = 200
                writer.write(
                    b"HTTP/1.1 %d Its own\r\nAccess-Control-Allow-Origin: *\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (status, len(body), body.encode())
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture(name="site")
def move_site(tmp_path: Path, certificates: Path, echo: int) -> Site:
    return Site(tmp_path, certificates, echo)


@pytest.fixture(name="client")
async def start_nginx(site: Site, certificates: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Speaks TLS to a running Nginx as to the real host, and checks its certificate."""
    async with running(site, certificates) as session:
        yield session


@asynccontextmanager
async def running(site: Site, certificates: Path) -> AsyncIterator[aiohttp.ClientSession]:
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
