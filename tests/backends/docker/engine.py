"""A stand-in for the Docker Engine that answers as the test tells it, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class ScriptedEngine:
    """Answers each request with the next script; keeps what was asked.

    A script is bytes, or a list of bytes and of seconds to wait in between.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[str] = []
        self.scripts: list[bytes | list[bytes | float]] = []
        self._open: set[asyncio.Task[None]] = set()

    def says(self, *scripts: bytes | list[bytes | float]) -> None:
        self.scripts.extend(scripts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        with suppress(asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.decode())
            script = self.scripts.pop(0)
            for each in [script] if isinstance(script, bytes) else script:
                if isinstance(each, float):
                    await asyncio.sleep(each)
                else:
                    writer.write(each)
        self._open.discard(task)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def end(self) -> None:
        """Hang up on everybody."""
        for task in [*self._open]:
            task.cancel()
        await asyncio.gather(*self._open)


def reply(body: bytes, status: str = "200 OK") -> bytes:
    """A response of a known length."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


@asynccontextmanager
async def scripted_engine(folder: Path) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(f"unix://{folder / 'docker.sock'}")
    server = await asyncio.start_unix_server(engine.serve, folder / "docker.sock")
    try:
        yield engine
    finally:
        server.close()
        await engine.end()
