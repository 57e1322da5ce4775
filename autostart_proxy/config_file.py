"""The configuration file on disk: read at the start, and again whenever it changes.

Rules:

- Only a valid configuration ever takes the place of another one. What is invalid, empty,
  half-written or gone is logged once and otherwise ignored.
- A change is read once it has rested for a moment, so a slow writer causes no error.
- The file is looked at by name, twice a second. That sees a file that was replaced by renaming,
  a changed link and a network file system, where inotify is blind to at least one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from autostart_proxy.config import source_text
from autostart_proxy.config.model import Config, ServiceConfig
from autostart_proxy.config.reader import parse
from autostart_proxy.errors import ConfigError

POLL_SECONDS = 0.5
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int, int] | None


class ConfigFile:
    """One configuration file.

    Args:
        path: YAML if it ends in .yaml or .yml, else JSON (UTF-8).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._asked = asyncio.Event()
        self._stamp: _Stamp = None
        self._text = ""

    def load(self) -> Config:
        """Read the file now.

        Raises:
            ConfigError: the file cannot be read, or is not valid.
        """
        self._stamp = self._look()
        text = self._read()
        config = parse(text, source=str(self.path), inspect=missing)
        self._text = text
        return config

    def ask(self) -> None:
        """Have `changes` read the file at once, even if it looks unchanged."""
        self._asked.set()

    async def changes(self, current: Config) -> AsyncIterator[Config]:
        """Yield each valid configuration that comes after the current one, for ever.

        After `ask` something is always yielded: the configuration that is in force then.
        """
        seen = self._stamp
        refused: list[str] = []
        while True:
            asked = await self._rest()
            stamp = self._look()
            settled, seen = stamp == seen, stamp
            if not asked and (stamp == self._stamp or not settled):
                continue
            before = self._text
            try:
                config = self.load()
            except ConfigError as error:
                if asked or error.problems != refused:
                    _log.error(
                        "configuration refused, the last good one stays in force",
                        extra={"problems": "; ".join(error.problems)},
                    )
                refused = error.problems
                if not asked:
                    continue
            else:
                if self._text == before and not refused and not asked:
                    continue
                current, refused = config, []
            yield current

    async def _rest(self) -> bool:
        """Wait for the next look; return whether somebody asked for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._asked.wait()
        asked = self._asked.is_set()
        self._asked.clear()
        return asked

    def _look(self) -> _Stamp:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> str:
        try:
            with self.path.open("rb") as file:
                content = file.read(4 * source_text.MAX_LENGTH + 1)
            return content.decode("utf-8-sig")
        except OSError as error:
            raise ConfigError([f"{self.path}: {_reason(error)}"]) from error
        except UnicodeDecodeError as error:
            before = content[: error.start]
            column = len(before) - before.rfind(b"\n")
            at = f"{self.path}:{before.count(10) + 1}:{column}"
            raise ConfigError([f"{at}: not UTF-8; save the file in this encoding"]) from error


def missing(service: ServiceConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of a service that name something that is not there, and why not."""
    if folder := service.compose_dir:
        yield from (("composeDir", reason) for reason in _folder_problems(folder))
        if folder.is_dir() and not any((folder / name).is_file() for name in COMPOSE_FILES):
            yield "composeDir", f"{folder} holds no Compose file; put a {COMPOSE_FILES[0]} there"
    if service.cwd:
        yield from (("cwd", reason) for reason in _folder_problems(service.cwd))
    if service.command and os.path.isabs(service.command[0]):
        program = service.command[0]
        if not os.access(program, os.X_OK):
            yield (
                "command",
                f"{program} is no program that can be run here; check its path and mode",
            )


def _folder_problems(folder: Path) -> Iterator[str]:
    try:
        os.scandir(folder).close()
    except OSError as error:
        yield f"{folder}: {_reason(error)}"


def _reason(error: OSError) -> str:
    """Return what the system says and what to do about it."""
    match error:
        case FileNotFoundError():
            return "there is no such file or folder; create it, or correct the path"
        case PermissionError():
            return f"may not be read by user {os.geteuid()}; check owner and mode"
        case NotADirectoryError():
            return "is no folder; name the folder that holds the file"
        case _:
            return f"cannot be read: {error.strerror}"
