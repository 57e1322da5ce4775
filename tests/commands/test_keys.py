"""Keys of programs: made, kept and forgotten. What Nginx makes of them is in test_nginx.py."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from autostart_proxy.commands import keys
from autostart_proxy.commands.keys import (
    BadName,
    FileProblem,
    Key,
    KeyFile,
    NameTaken,
    NotReloaded,
    UnknownName,
)

DAY = date(2026, 8, 1)
LIMIT_SECONDS = 60
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.conf"


def test_a_key_is_known_by_its_name_and_never_stored(path: Path) -> None:
    file = KeyFile(path)
    key = file.add("open-webui", DAY)
    start, _, secret = key.rpartition("_")
    assert start == "autostart_open-webui"
    assert (len(secret), secret.isalnum(), secret.isascii()) == (43, True, True)
    assert secret not in path.read_text()
    assert file.listed() == [Key("open-webui", "2026-08-01")]
    assert file.add("another", DAY).rpartition("_")[2] != secret


def test_the_hash_is_the_one_that_everybody_gets(path: Path) -> None:
    key = KeyFile(path).add("a", DAY)
    command = "printf %s $1 | openssl md5 -binary | openssl base64 | tr -d = | tr +/ -_"
    done = subprocess.run(["sh", "-c", command, "-", key], capture_output=True, text=True)
    assert path.read_text().splitlines()[1:] == [
        f"autostart_a {done.stdout.strip()}; # added 2026-08-01"
    ]


def test_a_name_has_one_key(path: Path) -> None:
    file = KeyFile(path)
    file.add("a", DAY)
    before = path.read_bytes()
    with pytest.raises(
        NameTaken, match="has a key since 2026-08-01, .*`autostart-proxy key remove a`"
    ):
        file.add("a", DAY)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("Open WebUI", "open-webui"),
        ("a_b", "a-b"),
        ("-a", "a"),
        ("a--b", "a-b"),
        ("a\nb", "a-b"),
        ("b" * 33, "b" * 32),
        ("ä", None),
        ("", None),
    ],
)
def test_a_bad_name_is_refused_and_a_good_one_said(
    path: Path, name: str, better: str | None
) -> None:
    with pytest.raises(BadName) as refused:
        KeyFile(path).add(name, DAY)
    assert str(refused.value).endswith(f"; {better} would do" if better else "at most")
    assert not path.exists()
    if better:
        KeyFile(path).add(better, DAY)


def test_a_removed_key_is_gone_and_its_name_free(path: Path) -> None:
    file = KeyFile(path)
    first = file.add("a", DAY)
    file.add("a-b", DAY)
    file.remove("a")
    assert file.listed() == [Key("a-b", "2026-08-01")]
    assert file.add("a", DAY) != first
    assert [key.name for key in file.listed()] == ["a-b", "a"]


def test_a_name_that_nobody_has_is_told_with_the_one_that_was_meant(path: Path) -> None:
    file = KeyFile(path)
    with pytest.raises(UnknownName, match="no key for 'a'; `autostart-proxy key list` shows all"):
        file.remove("a")
    assert not path.exists()
    file.add("open-webui", DAY)
    with pytest.raises(UnknownName, match="did you mean open-webui?"):
        file.remove("open-web")


def test_lines_of_others_stay_and_count_where_they_are_keys(path: Path) -> None:
    theirs = "# autostart_not a; line\n\nnonsense"
    path.write_text(f"{theirs}\n autostart_by-hand  x;# by Eve")
    file = KeyFile(path)
    file.add("a", DAY)
    assert file.listed() == [Key("by-hand", None), Key("a", "2026-08-01")]
    with pytest.raises(NameTaken, match="^by-hand has a key, which"):
        file.add("by-hand", DAY)
    file.remove("by-hand")
    assert path.read_text().startswith(f"{theirs}\nautostart_a ")
    file.remove("a")
    assert path.read_text() == f"{theirs}\n"


def test_a_new_file_is_for_the_group_of_its_folder_and_keeps_what_it_is_given(
    tmp_path: Path, path: Path
) -> None:
    group = 4321 if os.geteuid() == 0 else os.getegid()
    os.chown(tmp_path, -1, group)
    file = KeyFile(path)
    file.add("a", DAY)
    now = path.stat()
    assert (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid) == (0o640, os.geteuid(), group)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    before = path.stat()
    file.add("b", DAY)
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert now.st_ino != before.st_ino, "readers have the old file or the new one"


def test_a_link_stays_one(tmp_path: Path, path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to("elsewhere/keys.conf")
    KeyFile(path).add("a", DAY)
    assert path.is_symlink()
    assert KeyFile(tmp_path / "elsewhere" / "keys.conf").listed() == [Key("a", "2026-08-01")]


def test_writers_at_the_same_time_lose_nothing_of_each_other(path: Path) -> None:
    script = (
        "import sys; from datetime import date; from pathlib import Path\n"
        "from autostart_proxy.commands.keys import KeyFile\n"
        "for number in range(25): KeyFile(Path(sys.argv[1])).add(f'{sys.argv[2]}-{number}', "
        "date.today())"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in "abcd"]
    assert [writer.wait(LIMIT_SECONDS) for writer in writers] == [0, 0, 0, 0]
    names = [key.name for key in KeyFile(path).listed()]
    assert sorted(names) == sorted(f"{name}-{number}" for name in "abcd" for number in range(25))
    assert [each.name for each in path.parent.iterdir()] == ["keys.conf"]


def test_a_full_disk_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = KeyFile(path)
    file.add("a", DAY)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileProblem, match="No space left on device"):
        file.add("b", DAY)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["keys.conf"]


@contextmanager
def as_somebody() -> Iterator[None]:
    """Without the rights of root, where a test has them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_who_may_not_is_told_to_use_sudo(mode: int) -> None:
    with TemporaryDirectory() as name:  # others may not look into pytest's
        folder = Path(name)
        path = folder / "keys.conf"
        KeyFile(path).add("a", DAY)
        folder.chmod(mode)
        told = r"keys\.conf: is not for user \d+ to read and replace; use sudo"
        with as_somebody(), pytest.raises(FileProblem, match=told):
            KeyFile(path).add("b", DAY)
        folder.chmod(0o700)
        assert KeyFile(path).listed() == [Key("a", "2026-08-01")]
        assert list(folder.iterdir()) == [path]


def test_other_problems_with_the_file_come_with_a_cure(tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "missing"
    with pytest.raises(FileProblem, match=f"sudo install -d -m 750 -g www-data {folder}$"):
        KeyFile(folder / "keys.conf").listed()
    with pytest.raises(FileProblem, match="name a file with --file"):
        KeyFile(tmp_path).add("a", DAY)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FileProblem, match="is no text"):
        KeyFile(path).add("a", DAY)
    with pytest.raises(FileProblem, match="is in no folder"):
        KeyFile(path / "keys.conf").listed()


def nginx_that(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nginx"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_nginx_is_told_to_read_its_files_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nginx_that(tmp_path, f"echo $* > {tmp_path}/told", monkeypatch)
    keys.reload_nginx()
    assert (tmp_path / "told").read_text() == "-s reload\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("nginx: [warn] x\nnginx: [emerg] bad file", "nothing of it: bad file; mend that"),
        ("2026/08/01 10:00:00 [error] 7#7: no pid", "nothing of it: no pid; mend that"),
        ("", "nothing of it: `nginx -s reload` ended with 1; mend that"),
    ],
)
def test_what_keeps_nginx_from_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    nginx_that(tmp_path, f"printf '{said}' >&2; exit 1", monkeypatch)
    with pytest.raises(NotReloaded, match=told):
        keys.reload_nginx()


def test_without_nginx_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(NotReloaded, match="there is no nginx command"):
        keys.reload_nginx()
