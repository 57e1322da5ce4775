"""Where a unix socket can be had, and what stands in the way."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from autostart_proxy.unix_socket import CannotBind, Taken, bind


def test_only_owner_and_group_can_connect_from_the_first_moment(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with bind(tmp_path / "s"):
            mode = (tmp_path / "s").stat().st_mode
        assert os.umask(0) == 0, "the process' own mask is as before"
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660


def test_a_socket_that_a_dead_program_left_is_replaced_and_a_live_one_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    bind(path).close()
    with bind(path) as alive:
        alive.listen()
        inode = path.stat().st_ino
        with pytest.raises(Taken, match="somebody listens there already"):
            bind(path)
        assert path.stat().st_ino == inode


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case _:
            bind(tmp_path / "elsewhere").close()
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotBind, match="exists and is no socket"):
        bind(path)
    assert path.exists()


def test_what_the_system_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(CannotBind, match="cannot be made: No such file or directory"):
        bind(tmp_path / "nowhere" / "s")
    with pytest.raises(CannotBind, match="cannot be made: .*too long"):
        bind(tmp_path / ("x" * 200))


def test_a_refused_socket_leaves_no_descriptor(tmp_path: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(CannotBind):
            bind(tmp_path / "nowhere" / "s")
    assert len(os.listdir("/proc/self/fd")) == opened


def test_who_connects_is_heard(tmp_path: Path) -> None:
    with bind(tmp_path / "s") as listener:
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            client.sendall(b"hello")
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(5) == b"hello"


def test_a_socket_is_its_groups_before_anybody_can_connect(tmp_path: Path) -> None:
    groups = [grp.getgrgid(each).gr_name for each in {os.getegid(), *os.getgroups()}]
    if os.geteuid() == 0:
        groups.append("nogroup")
    for name in groups:
        with bind(tmp_path / name, name):
            found = (tmp_path / name).stat()
            assert found.st_gid == grp.getgrnam(name).gr_gid
            assert stat.S_IMODE(found.st_mode) == 0o660
            with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
                client.connect(str(tmp_path / name))


def test_a_group_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotBind, match="there is no group 'no-such-group'"):
        bind(tmp_path / "s", "no-such-group")
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_group_of_others_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    os.chown(tmp_path, 65533, 65533)
    for folder in list(tmp_path.parents)[:4]:
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(0o711)
    groups = os.getgroups()
    os.setgroups([])
    os.seteuid(65533)
    try:
        with pytest.raises(CannotBind, match="not in the group"):
            bind(tmp_path / "s", "nogroup")
        assert not (tmp_path / "s").exists()
    finally:
        os.seteuid(0)
        os.setgroups(groups)
