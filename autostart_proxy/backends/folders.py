"""Whether a folder that the configuration names is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from autostart_proxy.errors import explained


def folder_problems(folder: Path) -> Iterator[str]:
    """Yield why a folder cannot be read, if it cannot."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        yield f"{folder}: {explained(error, os.geteuid())}"
