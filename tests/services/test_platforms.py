"""The images can be built where they are said to be: all they need has a wheel for the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2] / "services"


def versions(machine: str, *locks: str) -> dict[str, str]:
    """What an image of Debian's python:3.11-slim gets, by name; from wheels only."""
    # uv resolves for other machines than its own, which pip does not: pip's conditions on the
    # processor are those of the machine that it runs on.
    resolved = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", *locks),
            *("--python-version=3.11", f"--python-platform={machine}-manylinux_2_28"),
            *("--only-binary=:all:", "--no-header", "--no-annotate"),
        ],
        cwd=SERVICES,
        capture_output=True,
        text=True,
    )
    if "Failed to fetch" in resolved.stderr and not os.environ.get("CI"):
        pytest.skip("the package index cannot be reached")
    assert resolved.returncode == 0, resolved.stderr
    return dict(line.split("==") for line in resolved.stdout.splitlines())


@pytest.mark.parametrize(
    ("machine", "extra"), [("aarch64", "cpu"), ("x86_64", "cpu"), ("x86_64", "cuda")]
)
def test_faster_whisper_brings_cuda_where_it_is_asked_for(machine: str, extra: str) -> None:
    found = versions(machine, f"faster-whisper/requirements-{extra}.lock")
    assert "ctranslate2" in found
    assert "torch" not in found
    cuda = {"nvidia-cublas-cu12", "nvidia-cudnn-cu12"} & set(found)
    assert len(cuda) == (2 if extra == "cuda" else 0)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_whisperx_brings_the_torch_that_it_is_made_for(machine: str) -> None:
    found = versions(machine, "whisperx/requirements.lock", "whisperx/pytorch-cuda.lock")
    assert found["torch"].startswith("2.8.")
    assert found["pyannote-audio"].startswith("4.0.")
    assert ("nvidia-cublas-cu12" in found) == (machine == "x86_64"), "PyPI's is for CPUs on ARM"
