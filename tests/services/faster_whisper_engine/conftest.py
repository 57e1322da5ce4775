"""What the tests of this engine start from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine, and no model of its cache, takes part."""
    for name in os.environ:
        if name.startswith(("WHISPER", "HF_", "UVICORN")) or name in ("API_KEY", "LOG_LEVEL"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
