"""What more than one module of tests needs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from functools import cache

import pytest

from autostart_proxy.backends import Upstream


@cache
def _missing() -> str:
    """Why tests on a real Docker Engine cannot run here; empty if they can."""
    docker = shutil.which("docker")
    if docker is None:
        return "there is no docker command"
    for question in (["version"], ["compose", "version"]):
        try:
            answer = subprocess.run([docker, *question], capture_output=True, timeout=20)
        except subprocess.TimeoutExpired:
            return "the Docker Engine does not answer"
        if answer.returncode != 0:
            return answer.stderr.decode(errors="replace").strip() or "docker does not work"
    return ""


@pytest.hookimpl
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `docker` is skipped without an engine, but fails where `CI` is set."""
    if item.get_closest_marker("docker") is None or not _missing():
        return
    if os.environ.get("CI"):
        pytest.fail(f"needs a Docker Engine with Compose v2: {_missing()}", pytrace=False)
    pytest.skip(f"needs a Docker Engine with Compose v2: {_missing()}")


@pytest.fixture
async def web() -> AsyncIterator[Upstream]:
    """A program that is ready from the start."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield Upstream("127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()
