"""A relay in front of the engine's socket that does what a sick daemon would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

ENGINE_SOCKET = "/var/run/docker.sock"


class FaultySocket:
    """Listens on a socket of its own; hands everything through until told otherwise.

    Attributes:
        mute: accept and never answer.
        cut_events_at_once: break off every event stream before it begins.
        asked: the first request lines of all connections, such as "GET /_ping HTTP/1.1".
        heads: the heads of all requests.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mute = False
        self.cut_events_at_once = False
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self._instead: list[tuple[str, bytes | None]] = []
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], str] = {}

    @property
    def address(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.path}"

    async def appear(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def vanish(self) -> None:
        """Stop listening, cut all that is open, remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        await self.cut(lambda line: True)

    async def cut(self, which: Callable[[str], bool] = lambda line: "/events" in line) -> None:
        """Break open connections off."""
        tasks = [task for task, line in self._open.items() if which(line)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def answer_instead(self, pattern: str, answer: bytes | None) -> None:
        """Give the next matching request this answer; None: half of the engine's."""
        self._instead.append((pattern, answer))

    def _hear(self, data: bytes) -> None:
        """Take note of what a client says later on; it begins no request before an answer."""
        if re.match(rb"[A-Z]+ /\S* HTTP/1\.1\r\n", data):
            self.heads.append(data.partition(b"\r\n\r\n")[0])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = ""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.partition(b"\r\n")[0].decode()
            self._open[task] = line
            self.asked.append(line)
            self.heads.append(head)
            if self.mute:
                await asyncio.sleep(3600)
            if self.cut_events_at_once and "/events" in line:
                return
            for index, (pattern, answer) in enumerate(self._instead):
                if re.search(pattern, line):
                    del self._instead[index]
                    writer.write(answer if answer is not None else await _half(head))
                    return
            await _relay(head, reader, writer, self._hear)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            return
        finally:
            self._open.pop(task, None)
            writer.close()


async def _half(head: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
    writer.write(head)
    whole = await reader.read()
    writer.close()
    return whole[: -len(whole) // 3]


async def _relay(
    head: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    hear: Callable[[bytes], None],
) -> None:
    from_engine, to_engine = await asyncio.open_unix_connection(ENGINE_SOCKET)
    to_engine.write(head)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, to_engine, hear))
            both.create_task(_pump(from_engine, writer, lambda data: None))
    except* OSError:
        pass
    finally:
        to_engine.transport.abort()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hear: Callable[[bytes], None]
) -> None:
    while data := await reader.read(65536):
        hear(data)
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
