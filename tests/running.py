"""The proxy as its users run it: a process with a `config.json`, and commands beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.ports import free_port

LIMIT_SECONDS = 30

# Answers with its process id; /slow waits for a second before it does.
PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/slow":
                time.sleep(1)
            body = str(os.getpid()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    if "--fail" in sys.argv:
        sys.exit("boom")
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
    """
)


class Proxy:
    """A configuration with one service, and the proxy that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)
        self.port = free_port()
        self.service_port = free_port()
        self.log = ""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.write()

    def write(self, *arguments: str, top: dict[str, Any] | None = None, **keys: Any) -> None:
        service = {
            "name": "The A",
            "command": [sys.executable, str(self.program), str(self.service_port), *arguments],
            "proxyPort": self.service_port,
            **keys,
        }
        whole = {
            "listen": f"127.0.0.1:{self.port}",
            "controlSocket": str(self.folder / "c.sock"),
            "services": {"a.example": service},
            **(top or {}),
        }
        self.config.write_text(json.dumps(whole, indent=2))

    async def start(self, **environment: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "autostart_proxy", "run", "--config", str(self.config)),
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self._reading = asyncio.ensure_future(self._read())
        await self.until_logged("listening")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in self._process.stderr:
            self.log += line.decode()

    def stop_reading(self) -> None:
        """Leave its log in the pipe from now on."""
        assert self._reading is not None
        self._reading.cancel()

    def read_again(self) -> None:
        """Take what is in the pipe."""
        self._reading = asyncio.ensure_future(self._read())

    async def until_logged(self, words: str, times: int = 1) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.log.count(words) < times:
                assert self._reading is None or not self._reading.done(), self.log
                await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait until the process has ended; return its exit status."""
        assert self._process is not None and self._reading is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            status = await self._process.wait()
            await self._reading
        return status

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self.end()

    async def get(self, path: str = "/", host: str = "a.example") -> tuple[int, str]:
        async with asyncio.timeout(LIMIT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = (await reader.read()).decode()
            writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split(" ", 2)[1]), body

    async def cli(self, *words: str) -> tuple[int, str, str]:
        """Run a command on this configuration; return status, output and errors."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "autostart_proxy", *words, "--config", str(self.config)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(LIMIT_SECONDS):
            out, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Proxy]:
    """A proxy that can be started; it is gone at the end, and its command with it."""
    proxy = Proxy(folder)
    yield proxy
    await proxy.stop()
    # A command that outlived a killed proxy would keep its port.
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(proxy.program) in entry.read_text():
                    os.kill(int(entry.parent.name), signal.SIGKILL)
