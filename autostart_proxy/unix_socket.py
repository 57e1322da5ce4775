"""Where a unix socket can be had, and why not where it cannot."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path


class CannotBind(Exception):
    """The path cannot become a socket; the message says why, without the path."""


class Taken(CannotBind):
    """Somebody listens at the path."""


def bind(path: Path, group: str | None = None) -> socket.socket:
    """Return a stream socket bound to the path; only owner and group can ever connect to it.

    A socket that a dead program left behind is replaced.

    Args:
        group: whose members may connect; None: the group of this process.
    Raises:
        Taken: somebody listens there.
        CannotBind: something else has the name, there is no such group, or the system refuses.
    """
    try:
        owner = None if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        raise CannotBind(f"there is no group {group!r}") from None
    try:
        _clear(path)
        listener = _bound(path)
        if owner is not None:
            _give(listener, path, owner)
        return listener
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotBind(f"it cannot be made: {reason}") from error


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotBind("it exists and is no socket")
    if _is_served(path):
        raise Taken("somebody listens there already")
    path.unlink()


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _give(listener: socket.socket, path: Path, group: int) -> None:
    """Hand a socket to a group before anybody can connect: nobody listens yet."""
    try:
        os.chown(path, -1, group)
    except PermissionError:
        listener.close()
        path.unlink()
        raise CannotBind("its user is not in the group, and only members may give to it") from None


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
