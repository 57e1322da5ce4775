"""Keys of programs, in the file from which Nginx knows them.

Nginx does the comparing (nginx/conf.d/autostart-keys.conf); docs/access.md says why in this way.
Rules:
- A key is told once, when it is made. What is stored is a hash, from which no way leads back.
- The file is replaced as a whole or not at all, under a lock of its folder: of two writers at a
  time neither loses what the other wrote.
- It keeps its owner, group and mode. Lines of somebody else stay as they are.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import string
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

PREFIX = "autostart_"
"""How every key begins, so that whoever finds one knows what it opens."""

_SECRET_LENGTH = 43  # of 62 characters: 256 bits
_ALPHABET = string.ascii_letters + string.digits

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_NAME = 32  # what Nginx's hash tables hold without being told to hold more
_LINE = re.compile(rf"{PREFIX}({_NAME.pattern})\s+[\w-]+;(?:\s*# added ([\d-]+))?.*")

_MARKS = re.compile(r"^(nginx: |\d\S+ \d\S+ )\[\w+\] (\d+#\d+: )?")
"""What Nginx puts before its words."""

_MODE = 0o640
_HEAD = "# Keys of programs, by `autostart-proxy key`; Nginx reads them when it is reloaded.\n"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key once it has been told; the day, where somebody noted it."""

    name: str
    added: str | None


class KeyProblem(Exception):
    """What was asked for is not done; the message says why, and what to do."""


class BadName(KeyProblem):
    """The name has other characters than a key may have, or too many."""

    def __init__(self, name: str) -> None:
        better = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_NAME].strip("-")
        super().__init__(
            f"{name!r} is no name for a key: it takes small letters, digits and single hyphens, "
            f"{_LONGEST_NAME} at most" + (f"; {better} would do" if better else "")
        )


class NameTaken(KeyProblem):
    """A key of this name exists, and cannot be told again."""

    def __init__(self, key: Key) -> None:
        super().__init__(
            f"{key.name} has a key" + (f" since {key.added}" if key.added else "") + ", which "
            f"cannot be shown again; choose another name, or first `autostart-proxy key remove "
            f"{key.name}`"
        )


class UnknownName(KeyProblem):
    """No key has this name."""

    def __init__(self, name: str, names: Iterable[str]) -> None:
        meant = difflib.get_close_matches(name, names, 1)
        cure = f"did you mean {meant[0]}?" if meant else "`autostart-proxy key list` shows all"
        super().__init__(f"there is no key for {name!r}; {cure}")


class FileProblem(KeyProblem):
    """The file cannot be read or replaced."""

    def __init__(self, path: Path, error: OSError | UnicodeDecodeError) -> None:
        match error:
            case PermissionError():
                why = f"is not for user {os.geteuid()} to read and replace; use sudo"
            case FileNotFoundError():
                folder = path.parent
                why = f"its folder is missing; sudo install -d -m 750 -g www-data {folder}"
            case IsADirectoryError() | NotADirectoryError():
                why = "is in no folder, or is one itself; name a file with --file"
            case UnicodeDecodeError():
                why = "is no text, so hardly a list of keys; name another file with --file"
            case _:
                why = f"cannot be read and replaced: {error.strerror}"
        super().__init__(f"{path}: {why}")


class NotReloaded(KeyProblem):
    """The file is changed, and Nginx did not read it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the change is stored, but Nginx knows nothing of it: {why}; mend that (`sudo nginx "
            "-t` finds what is wrong with its files), then `sudo systemctl reload nginx`"
        )


class KeyFile:
    """The keys in a file, which need not exist yet; its folder must.

    Every method raises `FileProblem` where the file cannot be read or replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))  # a link is not replaced by a file

    def listed(self) -> list[Key]:
        """Return all keys in the order of the file."""
        with self._problems_told(), self._locked(fcntl.LOCK_SH):
            return list(_keys(self._read()))

    def add(self, name: str, today: date) -> str:
        """Make a key and return it; it can never be had again.

        Raises:
            BadName, NameTaken: no key was made.
        """
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise BadName(name)
        secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
        key = f"{PREFIX}{name}_{secret}"
        with self._replacing() as lines:
            for other in _keys(lines):
                if other.name == name:
                    raise NameTaken(other)
            lines.append(f"{PREFIX}{name} {_digest(key)}; # added {today.isoformat()}\n")
        return key

    def remove(self, name: str) -> None:
        """Forget a key.

        Raises:
            UnknownName: there is none of this name.
        """
        with self._replacing() as lines:
            kept = [line for line in lines if name not in (key.name for key in _keys([line]))]
            if len(kept) == len(lines):
                raise UnknownName(name, [key.name for key in _keys(lines)])
            lines[:] = kept

    @contextmanager
    def _replacing(self) -> Iterator[list[str]]:
        """Lend the lines for a change; they are written if it ends well."""
        with self._problems_told(), self._locked(fcntl.LOCK_EX) as folder:
            lines = self._read() or [_HEAD]
            yield lines
            self._write("".join(lines), folder)

    @contextmanager
    def _problems_told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeDecodeError) as error:
            raise FileProblem(self._path, error) from error

    @contextmanager
    def _locked(self, kind: int) -> Iterator[int]:
        """Lock the folder, since the file is another one after every change."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, kind)
            yield folder
        finally:
            os.close(folder)

    def _read(self) -> list[str]:
        try:
            lines = self._path.read_text("utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return []
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        return lines

    def _write(self, text: str, folder: int) -> None:
        """Put the file into place, on the disk as well, with the rights it had."""
        file, temporary = tempfile.mkstemp(prefix=".keys-", dir=self._path.parent)
        try:
            with open(file, "w", encoding="utf-8") as stream:
                self._give_rights(stream.fileno(), folder)
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise
        os.fsync(folder)

    def _give_rights(self, file: int, folder: int) -> None:
        """A new file gets the group of its folder, which is that of Nginx (README)."""
        try:
            old = os.stat(self._path)
            owner, group, mode = old.st_uid, old.st_gid, stat.S_IMODE(old.st_mode)
        except FileNotFoundError:
            owner, group, mode = os.geteuid(), os.fstat(folder).st_gid, _MODE
        os.fchown(file, owner, group)
        os.fchmod(file, mode)


def _keys(lines: Iterable[str]) -> Iterator[Key]:
    for line in lines:
        if found := _LINE.fullmatch(line.strip()):
            yield Key(found[1], found[3])


def _digest(key: str) -> str:
    """Return the hash as Nginx's `secure_link_md5` compares it: base64url without padding.

    Nginx has no other for this without further modules. What broke MD5 is that two texts with one
    hash can be made; from a hash to 256 random bits nothing has ever led.
    """
    digest = hashlib.md5(key.encode()).digest()  # noqa: S324 - see above
    return urlsafe_b64encode(digest).decode().rstrip("=")


def reload_nginx() -> None:
    """Have Nginx read its files again.

    Raises:
        NotReloaded: it is not there, does not run, or finds fault with a file.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    nginx = shutil.which("nginx", path=path)
    if nginx is None:
        raise NotReloaded("there is no nginx command")
    done = subprocess.run([nginx, "-s", "reload"], capture_output=True, text=True)
    if done.returncode != 0:
        said = _MARKS.sub("", done.stderr.strip().rpartition("\n")[2])
        raise NotReloaded(said or f"`nginx -s reload` ended with {done.returncode}")
