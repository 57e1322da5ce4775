"""Print what distributions need from elsewhere, for an image layer that outlives our code.

python requirements.py EXTRA FOLDER...
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

OWN = frozenset({"faster-whisper-engine", "speech-service", "whisperx-engine"})
"""The distributions of this folder, which no index has."""


def requirements(extra: str, folders: list[Path]) -> list[str]:
    """Return the requirements of all folders and of their optional group `extra`."""
    projects = [
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in folders
    ]
    wanted = [
        requirement
        for project in projects
        for requirement in (
            *project["dependencies"],
            *project.get("optional-dependencies", {}).get(extra, ()),
        )
    ]
    return [wish for wish in wanted if re.split(r"[^\w.-]", wish, maxsplit=1)[0] not in OWN]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1], [Path(folder) for folder in sys.argv[2:]])))
