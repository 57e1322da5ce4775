"""The configuration file on disk: read at the start, and again whenever it changes.

Rules:

- Only a valid configuration ever takes the place of another one. What is invalid, empty,
  half-written or gone is logged once and otherwise ignored.
- A folder or program that is not there concerns one service: it is told, and all others go on.
- A change is read once it has rested for a moment, so a slow writer causes no error.
- The file is looked at by name, twice a second. That sees a file that was replaced by renaming,
  a changed link and a network file system, where inotify is blind to at least one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from autostart_proxy.backends.registry import Problem, env_files, missing, problems
from autostart_proxy.config import source_text
from autostart_proxy.config.model import Config, ServiceConfig
from autostart_proxy.config.reader import read
from autostart_proxy.errors import ConfigError, explained

POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int, int] | None


class ConfigFile:
    """One configuration file.

    Args:
        path: YAML if it ends in .yaml or .yml, else JSON (UTF-8).

    Attributes:
        mistakes: by host, what was wrong with single services when the file was last read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mistakes: Mapping[str, tuple[str, ...]] = {}
        self._asked = asyncio.Event()
        self._stamp: _Stamp = None
        self._text = ""

    def load(self, *, thoroughly: bool = False) -> Config:
        """Read the file now.

        Args:
            thoroughly: whether to have the backends' own tools look at what it names as well. That
                takes some 0.3 s for each Compose project, and is not for a running event loop.
        Raises:
            ConfigError: the file cannot be read, or is not valid.
        """
        self._stamp = self._look()
        text = self._read()
        inspect = _all_problems if thoroughly else _what_is_missing
        reading = read(text, source=str(self.path), inspect=inspect)
        self._text, self.mistakes = text, reading.mistakes
        return reading.config

    def exposed(self, config: Config) -> list[str]:
        """Say which files with secrets everybody on this machine may read; blocks, as `load` does.

        Args:
            config: what the file says.
        """
        found = asyncio.run(env_files({host: one.unit for host, one in config.services.items()}))
        if any(service.env for service in config.services.values()):
            found.add(self.path)
        return [
            f"{path}: everybody on this machine may read it, and it may hold secrets;"
            " sudo chmod 640, with a group of which the proxy's user is a member"
            for path in sorted(found)
            if _is_open_to_all(path)
        ]

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
                for problem in error.problems if asked or error.problems != refused else ():
                    _log.error(
                        "configuration refused, the last good one stays in force",
                        extra={"problem": problem},
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
            raise ConfigError([f"{self.path}: {explained(error, os.geteuid())}"]) from error
        except UnicodeDecodeError as error:
            before = content[: error.start]
            column = len(before) - before.rfind(b"\n")
            at = f"{self.path}:{before.count(10) + 1}:{column}"
            raise ConfigError([f"{at}: not UTF-8; save the file in this encoding"]) from error


def _is_open_to_all(path: Path) -> bool:
    """Whether everybody may read a file, and pass the folders above it."""
    path = path.resolve()
    try:
        open_ways = all(each.stat().st_mode & stat.S_IXOTH for each in path.parents)
        return open_ways and bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _what_is_missing(services: Mapping[str, ServiceConfig]) -> Iterable[Problem]:
    return [(host, *each) for host, one in services.items() for each in missing(one.unit)]


def _all_problems(services: Mapping[str, ServiceConfig]) -> Iterable[Problem]:
    return asyncio.run(problems({host: one.unit for host, one in services.items()}))
