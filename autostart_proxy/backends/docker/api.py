"""The few calls of the Docker Engine API that a Compose project needs.

Our own client and not the Docker SDK: the SDK blocks, so that every call would need a thread and
a cancelled one would go on unseen there; and importing it costs an idle proxy 7 MB. Every call
is one request on a connection of its own, which on a unix socket costs next to nothing.

The paths carry no API version, so every engine answers with its own: only fields that have not
changed since API 1.41 (Engine 20.10) are read. docs/security.md lists the calls.

https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httptools

from autostart_proxy.backends import OWN_GRACE_SECONDS
from autostart_proxy.backends.docker.container import (
    LABEL,
    Container,
    Listed,
    read_container,
    read_listed,
)
from autostart_proxy.backends.tail import KEPT_LINES, last_lines
from autostart_proxy.errors import BackendUnreachable

_log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"

LOOK_SECONDS = 4.0
"""For calls that only look: a daemon that takes longer is as good as gone."""

ACT_SECONDS = 30.0
"""For calls that change something: on a slow disk a container's start may take a while."""

LONGEST_GRACE_SECONDS = 900.0
"""For a container that asks to be waited for without end."""

_CHUNK_BYTES = 65536


def docker_host() -> str:
    """The engine's address as the environment has it, or the usual one."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS


def is_loopback(host: str) -> bool:
    """Whether a host means the machine on which it is said."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class DockerRefusal(Exception):
    """The engine answered with an error.

    Args:
        call: what was asked: method and path.
        status: HTTP status, 400 or more.
        message: the engine's own words.
    """

    def __init__(self, call: str, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(f"{message} ({call}: {status})")


class DockerClient:
    """A Docker Engine.

    Every call raises `BackendUnreachable` if the engine does not answer in time or breaks off,
    and `DockerRefusal` if it says no.

    Args:
        address: as in DOCKER_HOST: unix:///path or tcp://host:port (TLS by DOCKER_TLS_VERIFY and
            DOCKER_CERT_PATH).
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def is_local(self) -> bool:
        """Whether the engine is on this machine, as far as its address tells."""
        where = urlsplit(self.address)
        return where.scheme == "unix" or is_loopback(where.hostname or "")

    async def ping(self) -> None:
        """Find out whether it answers."""
        await self._call("GET", "/_ping")

    async def compose_containers(self) -> list[Listed]:
        """All containers of Compose projects, but no `compose run`'s."""
        label = [LABEL + "project", LABEL + "oneoff=False"]
        filters = json.dumps({"label": label})
        listed = await self._json("/containers/json", all="1", filters=filters)
        return [read_listed(each) for each in listed]

    async def running_containers(self) -> list[Listed]:
        """All containers that run, whoever they belong to."""
        return [read_listed(each) for each in await self._json("/containers/json")]

    async def container(self, id: str) -> Container | None:
        """What a container is like now, by its id or name; None if it is gone."""
        try:
            return read_container(await self._json(f"/containers/{quote(id)}/json"))
        except DockerRefusal as refusal:
            if refusal.status != 404:
                raise
            return None

    async def image_id(self, name: str) -> str | None:
        """What an image's name means now; None if there is no such image here.

        None also where the engine does not tell: what is known by it only saves time.
        """
        try:
            return str((await self._json(f"/images/{quote(name)}/json"))["Id"])
        except DockerRefusal as refusal:
            if refusal.status != 404:
                _log.debug("image not looked at", extra={"reason": str(refusal)})
            return None

    async def start(self, container: Container) -> None:
        """Start it; one that runs already is left alone."""
        await self._call("POST", f"/containers/{container.id}/start", limit_seconds=ACT_SECONDS)

    async def unpause(self, container: Container) -> None:
        """Let it go on."""
        await self._call("POST", f"/containers/{container.id}/unpause", limit_seconds=ACT_SECONDS)

    async def stop(self, container: Container, grace_seconds: float | None) -> None:
        """Stop it, by SIGKILL after the grace period; one that is stopped or gone is left alone.

        Args:
            grace_seconds: None: what the container asks for itself.
        """
        query = {} if grace_seconds is None else {"t": str(math.ceil(grace_seconds))}
        grace = own_grace_seconds(container) if grace_seconds is None else grace_seconds
        try:
            await self._call(
                "POST",
                f"/containers/{container.id}/stop",
                query,
                limit_seconds=grace + ACT_SECONDS,
            )
        except DockerRefusal as refusal:
            if refusal.status != 404:
                raise

    async def log_tail(self, container: Container) -> tuple[str, ...]:
        """Its last lines; none where its log driver keeps them from the engine."""
        query = {"stdout": "1", "stderr": "1", "tail": str(KEPT_LINES)}
        try:
            output = await self._call("GET", f"/containers/{container.id}/logs", query)
        except DockerRefusal:
            return ()
        return last_lines([output] if container.tty else _frames(output))

    async def events(self, *kinds: str) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Tell what happens to containers of Compose projects, for ever.

        Yields None once, when the subscription stands, and then each event as the engine tells it.
        """
        filters = {"type": ["container"], "event": kinds, "label": [LABEL + "project"]}
        with self._translated("GET /events"):
            async with (
                asyncio.timeout(LOOK_SECONDS) as limit,
                self._exchange("GET", "/events", {"filters": json.dumps(filters)}) as response,
            ):
                while not response.begun and await response.more():
                    pass
                response.check("GET /events")
                limit.reschedule(None)
                yield None
                while True:
                    for line in response.take_lines():
                        yield json.loads(line)
                    if not await response.more():
                        raise ConnectionError("the event stream ended")

    async def _json(self, path: str, **query: str) -> Any:
        body = await self._call("GET", path, query)
        with self._translated(f"GET {path}"):
            return json.loads(body)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] = {},
        *,
        limit_seconds: float = LOOK_SECONDS,
    ) -> bytes:
        call = f"{method} {path}"
        with self._translated(call):
            async with (
                asyncio.timeout(limit_seconds),
                self._exchange(method, path, query) as response,
            ):
                while await response.more():
                    pass
                response.check(call)
                return bytes(response.body)

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, query: Mapping[str, str]
    ) -> AsyncIterator[_Response]:
        reader, writer = await self._connect()
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            writer.write(
                f"{method} {target} HTTP/1.1\r\nHost: docker\r\n"
                "Connection: close\r\nContent-Length: 0\r\n\r\n".encode("ascii")
            )
            yield _Response(reader)
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        scheme, _, rest = self.address.partition("://")
        if scheme == "unix":
            return await asyncio.open_unix_connection(rest)
        where = urlsplit(self.address)
        if scheme not in ("tcp", "http", "https") or not where.hostname:
            raise BackendUnreachable(
                f"DOCKER_HOST {self.address!r} is not supported: use unix:///path or"
                " tcp://host:port (ssh -L can forward a remote unix socket)"
            )
        tls = scheme == "https" or bool(os.environ.get("DOCKER_TLS_VERIFY"))
        port = where.port or (2376 if tls else 2375)
        return await asyncio.open_connection(
            where.hostname, port, ssl=_tls_context() if tls else None
        )

    @contextmanager
    def _translated(self, call: str) -> Iterator[None]:
        """Say in one way that the engine is not there, whatever the transport says."""
        try:
            yield
        except TimeoutError as cause:
            raise BackendUnreachable(f"{self.address} did not answer in time ({call})") from cause
        except (OSError, ValueError, httptools.HttpParserError) as cause:
            raise BackendUnreachable(f"{self.address} failed: {cause} ({call})") from cause


class _Response:
    """An HTTP answer while it is read; also the parser's callbacks."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.begun = False
        self.body = bytearray()
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._complete = False
        self._delimited = False

    async def more(self) -> bool:
        """Read on; False once the answer is complete."""
        if self._complete:
            return False
        data = await self._reader.read(_CHUNK_BYTES)
        if data:
            self._parser.feed_data(data)
        elif self._delimited or not self.begun:
            raise ConnectionError("the answer was cut")
        else:
            self._complete = True
        return True

    def check(self, call: str) -> None:
        """Raise `DockerRefusal` if the engine said no. 304 is its way to say "already so"."""
        status = self._parser.get_status_code()
        if status < 400:
            return
        try:
            message = str(json.loads(self.body)["message"])
        except (ValueError, KeyError, TypeError):
            message = bytes(self.body[:500]).decode("utf-8", "replace") or f"status {status}"
        raise DockerRefusal(call, status, message)

    def take_lines(self) -> list[bytes]:
        """Take the complete lines out of the body."""
        *lines, rest = bytes(self.body).split(b"\n")
        self.body[:] = rest
        return [line for line in lines if line.strip()]

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._delimited = True

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self._complete = True


def own_grace_seconds(container: Container) -> float:
    """How long a container is given to end where nobody says otherwise."""
    grace = container.grace_seconds
    if grace is None:
        return OWN_GRACE_SECONDS
    return grace if grace >= 0 else LONGEST_GRACE_SECONDS


def _frames(output: bytes) -> Iterator[bytes]:
    """Take stdout and stderr out of their frames: 4 bytes stream, 4 bytes length, data."""
    at = 0
    while at + 8 <= len(output):
        length = int.from_bytes(output[at + 4 : at + 8], "big")
        yield output[at + 8 : at + 8 + length]
        at += 8 + length


def _tls_context() -> ssl.SSLContext:
    """The client's certificates where the Docker CLI looks for them."""
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
