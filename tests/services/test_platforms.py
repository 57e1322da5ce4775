"""The image can be built where it is said to be: every dependency comes ready for the platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2] / "services"
# What pip inside python:3.11-slim accepts: Debian's C library is newer than any of these asks for.
BASES = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_12")


def wheels(extra: str, machine: str, folder: Path) -> set[str]:
    """The files that pip would install into the image, sources never; nothing is kept."""
    script = [sys.executable, "requirements.py", extra, "common", "faster-whisper"]
    wanted = subprocess.run(script, cwd=SERVICES, capture_output=True, text=True, check=True)
    (folder / "requirements.txt").write_text(wanted.stdout)
    platforms = [f"--platform={base}_{machine}" for base in BASES]
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--python-version=3.11"]
    files = ["--report=report.json", "--target=nowhere", "--requirement=requirements.txt"]
    resolved = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *options, *platforms, *files],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if "Retrying (" in resolved.stderr and not os.environ.get("CI"):
        pytest.skip("the package index cannot be reached")
    assert resolved.returncode == 0, resolved.stderr
    report = json.loads((folder / "report.json").read_text())
    return {item["download_info"]["url"].rpartition("/")[2] for item in report["install"]}


@pytest.mark.parametrize(
    ("machine", "extra"), [("aarch64", "cpu"), ("x86_64", "cpu"), ("x86_64", "cuda")]
)
def test_every_dependency_has_a_wheel(machine: str, extra: str, tmp_path: Path) -> None:
    found = wheels(extra, machine, tmp_path)
    compiled = {name for name in found if not name.endswith("-any.whl")}
    assert any(name.startswith("ctranslate2-") for name in compiled)
    assert all(machine in name for name in compiled)
    cuda = {name.split("-")[0] for name in found} & {"nvidia_cublas_cu12", "nvidia_cudnn_cu12"}
    assert len(cuda) == (2 if extra == "cuda" else 0)
