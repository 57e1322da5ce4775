"""Whether a file has changed that Compose reads for a folder's project.

- All of them count: the Compose files with their overrides, those that `COMPOSE_FILE` names, what
  they include and extend, and the env files of each, wherever they lie; also those that are not
  there, where one would count if it came.
- A file's stamp is taken before its text is read, so that what changes meanwhile is noticed later.
- Where the list may not be whole (a file from the net, text that is no YAML), nothing is ever
  taken for unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autostart_proxy.backends.compose.references import Include, Unreadable, references

_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_MOST_FILES = 500

Stamp = tuple[int, ...] | None
Interpolate = Callable[[Sequence[str], Path, Sequence[Path]], Awaitable[list[str] | None]]
"""Have Compose replace the variables in texts, for a folder and its env files, later ones
stronger; None where it cannot."""


@dataclass(slots=True)
class Fingerprint:
    """The files of a project as they were.

    Attributes:
        roots: the Compose files that the project begins with.
        stamps: by path; None for one that is not there.
        env_files: those that are there and become somebody's environment, or labels.
        complete: whether these are all.
    """

    roots: list[Path] = field(default_factory=list)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    env_files: set[Path] = field(default_factory=set)
    complete: bool = True

    def still_holds(self) -> bool:
        """Whether nothing has changed."""
        return self.complete and all(_stamp(path) == was for path, was in self.stamps.items())

    @property
    def changed_at(self) -> float:
        """When the last change to one of the files was made, in seconds of this machine's clock.

        The moment that the system notes by itself: a copy may bring an old date along.
        """
        return max((was[-1] / 1e9 for was in self.stamps.values() if was), default=0.0)

    def see(self, path: Path) -> bool:
        """Note a file; whether it is there."""
        return self.stamps.setdefault(str(path), _stamp(path)) is not None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where names in a Compose file are looked up."""

    folder: Path
    env_files: tuple[Path, ...]


async def fingerprint(folder: Path, interpolate: Interpolate) -> Fingerprint:
    """Find the files of a folder's project, and note what they are like."""
    return await _Search(folder, interpolate).run()


def compose_file(folder: Path) -> Path | None:
    """The Compose file that Compose finds for a folder by itself: there, or in one above it."""
    for each in (folder, *folder.parents):
        for name in _NAMES:
            if (each / name).is_file():
                return each / name
    return None


def names_compose_file(env_file: Path) -> bool:
    """Whether an env file may say which Compose files to read."""
    return "COMPOSE_FILE" in (_text(env_file) or "")


class _Search:
    def __init__(self, folder: Path, interpolate: Interpolate) -> None:
        self._folder = folder
        self._interpolate = interpolate
        self._found = Fingerprint()
        self._read: set[tuple[Path, Path]] = set()

    async def run(self) -> Fingerprint:
        found = self._found
        usual = self._usual()
        base = usual[0].parent if usual else self._folder
        found.roots = await self._named(base) or usual
        if found.roots:
            base = found.roots[0].parent
            place = _Place(base, self._present(base / ".env", self._folder / ".env"))
            for each in found.roots:
                await self._follow(each, place)
        return found

    def _usual(self) -> list[Path]:
        """What Compose finds by itself, in the folder or the next one above it."""
        for each in (self._folder, *self._folder.parents):
            there = [name for name in _NAMES if self._found.see(each / name)]
            if there:
                overrides = [name for name in _OVERRIDES if self._found.see(each / name)]
                return [each / name for name in [*there[:1], *overrides[:1]]]
        return []

    async def _named(self, base: Path) -> list[Path]:
        """What `COMPOSE_FILE` says, which counts instead."""
        env_files = self._present(base / ".env", self._folder / ".env")
        if not any(map(names_compose_file, env_files)):
            return []
        named, separator = await self._resolved(
            ["${COMPOSE_FILE-}", "${COMPOSE_PATH_SEPARATOR:-:}"], _Place(base, env_files)
        )
        return [self._folder / each for each in named.split(separator or ":") if each]

    async def _follow(self, path: Path, place: _Place) -> None:
        """Note a Compose file and all that it names."""
        if (path, place.folder) in self._read:
            return
        self._read.add((path, place.folder))
        self._found.see(path)
        text = _text(path)
        if text is None or len(self._read) > _MOST_FILES:
            self._found.complete = False
            return
        try:
            named = references(text)
        except Unreadable:
            self._found.complete = False
            return
        bases = dict.fromkeys((place.folder, path.parent))  # which one counts depends on the key
        for name in await self._resolved(named.values, place):
            self._present(*(_path(base, name) for base in bases))
        for name in await self._resolved(named.extended, place):
            for other in self._there(bases, name):
                await self._follow(other, _Place(other.parent, place.env_files))
        for include in named.includes:
            await self._include(include, place)

    async def _include(self, include: Include, place: _Place) -> None:
        paths = await self._resolved(include.paths, place)
        [directory] = await self._resolved([include.project_directory], place)
        files = [each for name in paths for each in self._there([place.folder], name)]
        if not files:
            return
        base = _path(place.folder, directory) if directory else files[0].parent
        names = await self._resolved(include.env_files, place)
        named = [_path(place.folder, name) for name in names]
        env_files = self._present(*(named or [base / ".env"]))
        for each in files:
            await self._follow(each, _Place(base, (*env_files, *place.env_files)))

    def _there(self, bases: Iterable[Path], name: str) -> list[Path]:
        """The files of this name. Compose has found one: what is not here is from elsewhere."""
        paths = [_path(base, name) for base in bases]
        there = [each for each in paths if self._found.see(each)]
        if not there:
            self._found.complete = False
        return there

    def _present(self, *paths: Path) -> tuple[Path, ...]:
        """Note env files; which of them are there."""
        there = tuple(each for each in dict.fromkeys(paths) if self._found.see(each))
        self._found.env_files.update(there)
        return there

    async def _resolved(self, texts: Sequence[str], place: _Place) -> list[str]:
        if not any("$" in each for each in texts):
            return list(texts)
        resolved = await self._interpolate(texts, place.folder, place.env_files)
        if resolved is None:
            self._found.complete = False
            return ["" for _ in texts]
        return resolved


def _path(base: Path, name: str) -> Path:
    return base / os.path.expanduser(name)


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return None


def _stamp(path: str | Path) -> Stamp:
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
