"""How operators talk to the running proxy: JSON lines over a unix socket.

One request per connection: the client sends an object in one line, gets one back, and both hang
up. That is all that status, wake and sleep need, and it costs the idle proxy nothing: an HTTP
server would be a second library in its memory. The socket's mode (0660) says who may ask.

    {"command": "status"}                                   {"ok": true, "services": [{...}, ...]}
    {"command": "wake", "name": "a.example", "wait": true}  {"ok": true, "service": {...}}
    {"command": "sleep", "name": "a.example"}               {"ok": true, "service": {...}}
    what fails                                    {"ok": false, "error": tag, "message": text}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autostart_proxy import unix_socket
from autostart_proxy.control.sockets import TEMPORARY, ControlError
from autostart_proxy.errors import ProxyError
from autostart_proxy.fleet import Fleet, UnknownService

LINE_LIMIT_BYTES = 64 * 1024
REQUEST_SECONDS = 10.0


class ControlServer:
    """Answers operators on the proxy's side.

    Args:
        fleet: what status, wake and sleep are about.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> None:
        """Accept operators on a unix socket of mode 0660; a dead proxy's socket is replaced.

        Raises:
            ControlError: a running proxy has the socket, or it cannot be made.
        """
        try:
            _make_folder(path.parent)
            listener = unix_socket.bind(path)
        except unix_socket.Taken as error:
            raise ControlError(
                f"{path}: another proxy answers here; stop it, or set another controlSocket"
            ) from error
        except unix_socket.CannotBind as error:
            raise ControlError(f"{path}: {error}; remove it, or set controlSocket") from error
        except OSError as error:
            raise ControlError(f"{path}: cannot be made: {error.strerror or error}") from error
        self._path = path
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=LINE_LIMIT_BYTES
        )

    async def close(self) -> None:
        """Stop answering; what was asked and is not done yet is given up."""
        if self._server is None or self._path is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readline()
            writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass  # a client that asks nothing, too much, or has left
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            match json.loads(line):
                case {"command": "status"}:
                    services = [asdict(each) for each in await self._fleet.snapshot()]
                    return {"ok": True, "services": services}
                case {"command": "wake", "name": str(name), "wait": True}:
                    return {"ok": True, "service": asdict(await self._fleet.wake(name))}
                case {"command": "wake", "name": str(name)}:
                    return {"ok": True, "service": asdict(self._fleet.start_wake(name))}
                case {"command": "sleep", "name": str(name)}:
                    return {"ok": True, "service": asdict(await self._fleet.sleep(name))}
        except (ValueError, RecursionError):
            pass  # no JSON, or endless nesting
        except UnknownService as error:
            return {"ok": False, "error": "unknown_service", "message": str(error)}
        except ProxyError as error:
            message = f"{error}; {error.remedy}"
            return {"ok": False, "error": error.tag, "message": message}
        return {"ok": False, "error": "bad_command", "message": "expected a command"}


def _make_folder(folder: Path) -> None:
    """Make the socket's folder; in a folder for everybody's files, nobody else may own it."""
    if folder.exists():
        owner = folder.stat().st_uid
        if folder.parent == TEMPORARY and owner != os.geteuid():
            raise ControlError(f"{folder}: belongs to user {owner}; set controlSocket")
        return
    folder.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True)
