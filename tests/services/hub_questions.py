"""Questions to an engine that wants a model, asked here and, with other libraries, in the image."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from .whisperx import build

PROGRAM = Path(__file__).parent / "hub_program.py"
PIPELINE = "pyannote/speaker-diarization-community-1"
TOKEN = "hf_" + "Secret" * 5

Ask: TypeAlias = Callable[..., dict[str, Any]]


def here(folder: Path, environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command that asks with what is installed here, and its environment."""
    # -P: beside the program lie packages named as those that it imports.
    return [sys.executable, "-P", str(PROGRAM)], os.environ | environment


def in_image(folder: Path, environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command that asks in the image of WhisperX, which needs an older library of the hub's.

    Args:
        folder: of this machine, seen in the container at the same place.
    """
    command = [
        *("docker", "run", "--rm", "--network", "host", "--entrypoint", "python3"),
        *("--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{folder}:{folder}"),
        *("--volume", f"{PROGRAM}:/program.py:ro"),
        # By name only: a command line can be read by everybody.
        *(f"--env={name}" for name in environment),
        *(build(), "/program.py"),
    ]
    return command, os.environ | environment
