"""Folders that a configuration names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autostart_proxy.backends.folders import folder_problems


def test_a_folder_that_is_there_has_no_problem(tmp_path: Path) -> None:
    assert list(folder_problems(tmp_path)) == []


def test_what_is_not_there_or_no_folder_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [gone] = folder_problems(tmp_path / "gone")
    [file] = folder_problems(tmp_path / "file")
    assert (
        gone == f"{tmp_path}/gone: there is no such file or folder; create it, or correct the path"
    )
    assert file == f"{tmp_path}/file: is no folder; name the folder that holds the file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_a_folder_of_somebody_else_is_told_as_such(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        [problem] = folder_problems(tmp_path)
    finally:
        os.seteuid(0)
    assert "may not be read by user 65534; check owner and mode" in problem
