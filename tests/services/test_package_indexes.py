"""An image is built from the index of packages that is named, as an argument or as a secret."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

from .package_index import package_index

pytestmark = pytest.mark.docker

SERVICES = Path(__file__).parents[2] / "services"
PASSWORD = "Hush" * 8

engines = pytest.mark.parametrize("engine", ["faster-whisper", "whisperx"])


def build(engine: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Build until an index has no packages; nothing is kept, and layers that are here do not help.

    The build shares this machine's network, where the index is.
    """
    override = {"services": {engine: {"image": f"{engine}:unbuilt", "build": {"network": "host"}}}}
    return subprocess.run(
        [
            *("docker", "compose", "--progress", "plain"),
            *("--file", str(SERVICES / engine / "docker-compose.yml"), "--file", "-"),
            *("build", "--no-cache"),
        ],
        input=json.dumps(override),
        env=os.environ | {"TORCH_INDEX": "", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@engines
def test_as_an_argument(engine: str) -> None:
    with package_index() as index:
        built = build(engine, PIP_INDEX_URL=f"{index.address}/mirror/simple")
    assert built.returncode != 0
    assert index.asked
    assert all(path.startswith("/mirror/simple/") for path in index.asked)


@engines
def test_as_a_secret_that_is_shown_nowhere(engine: str, tmp_path: Path) -> None:
    with package_index() as index:
        address = index.address.replace("://", f"://me:{PASSWORD}@")
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {address}/simple\n")
        built = build(engine, PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert built.returncode != 0
    assert PASSWORD not in built.stdout
    expected = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert expected in index.credentials
    assert all(path.startswith("/simple/") for path in index.asked)
