"""The operators' side of the control socket; `server` describes what is said on it.

Anybody can make a socket in a folder for everybody's files, and tell whoever asks there what he
likes. So only a proxy is asked whose user is trusted: root, the one who asks, and the user of the
system's proxy, which is the one that root gave the folder of `SYSTEM_SOCKET` to.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from autostart_proxy.control.sockets import SYSTEM_SOCKET, ControlError, NoProxy, own_socket

_CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid: `struct ucred` of unix(7)."""


def socket_to_ask(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the default socket of the proxy to talk to: this user's own, else the system's."""
    own = own_socket(environment)
    try:
        return SYSTEM_SOCKET if _strangers(own) else own
    except OSError:  # it is not there, or in a folder that somebody else keeps to himself
        return SYSTEM_SOCKET


def ask(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the running proxy and return its answer; blocks until the proxy is done.

    Raises:
        ControlError: no proxy runs there, this user may not ask it or has no reason to trust it,
            or it said no.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
            _check_trust(path, connection)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoProxy(
                f"no proxy answers at {path}; start it, or name its socket with --socket"
            ) from None
        except PermissionError:
            raise ControlError(
                f"{path}: this user may not ask the proxy; use sudo, or join the socket's group"
            ) from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from None
    if not line:
        raise ControlError("the proxy hung up before it was done; it was most likely stopped")
    try:
        answer: dict[str, Any] = json.loads(line)
        refusal = "" if answer["ok"] else str(answer["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ControlError(f"{path}: what answers here is no autostart-proxy") from None
    if refusal:
        raise ControlError(refusal)
    return answer


def _check_trust(path: Path, connection: socket.socket) -> None:
    """Find out who answers before anything is said.

    Raises:
        ControlError: who listens, or could have put another socket in this one's place, is a
            stranger.
    """
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, listening, _ = _CREDENTIALS.unpack(peer)
    for stranger in (*_strangers(path), listening):
        if stranger not in _trusted():
            raise ControlError(
                f"{path}: belongs to user {stranger}, who is neither you nor root nor the user of"
                f" the proxy at {SYSTEM_SOCKET}; ask as that user, or name another socket with"
                " --socket"
            )


def _strangers(path: Path) -> list[int]:
    """The owners of a socket and its folder who are not trusted."""
    owners = path.lstat().st_uid, path.parent.stat().st_uid
    return [each for each in owners if each not in _trusted()]


def _trusted() -> set[int]:
    return {0, os.geteuid(), *_user_of_the_system()}


def _user_of_the_system() -> Iterator[int]:
    with suppress(OSError):
        yield SYSTEM_SOCKET.parent.stat().st_uid
