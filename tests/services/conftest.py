"""What tests of more than one engine start from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .fake_hub import FakeHub, serving
from .hub_questions import PIPELINE, TOKEN, Ask, here, in_image
from .whisperx import models


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The files of a diarization pipeline as the hub has them; their contents do not matter."""
    folder = tmp_path / "repository"
    for name in (
        "segmentation/pytorch_model.bin",
        "embedding/pytorch_model.bin",
        "plda/plda.npz",
        "plda/xvec_transform.npz",
        "README.md",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    parts = "".join(
        f"    {part}: $model/{part}\n" for part in ("segmentation", "embedding", "plda")
    )
    (folder / "config.yaml").write_text(f"pipeline:\n  name: x\n  params:\n{parts}")
    return folder


@pytest.fixture
def hub(pipeline: Path) -> Iterator[FakeHub]:
    with serving(FakeHub({PIPELINE: pipeline}, {PIPELINE}, {TOKEN: {PIPELINE}})) as hub:
        yield hub


@pytest.fixture(params=[here, pytest.param(in_image, marks=pytest.mark.docker)])
def ask(request: pytest.FixtureRequest, tmp_path: Path, hub: FakeHub) -> Ask:
    """Ask in a process of its own; nothing that it writes may hold the token."""

    def ask(token: str = "", hub_at: str = "", offline: bool = False, **question: Any) -> Any:
        environment = {
            "HF_HOME": str(tmp_path / "cache"),
            "TORCH_HOME": str(tmp_path / "cache" / "torch"),
            "HF_ENDPOINT": hub_at or hub.address,
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": "1" if offline else "",
        }
        command, settings = request.param(tmp_path, environment)
        question.setdefault("models", str(tmp_path / "models"))
        ended = subprocess.run(
            [*command, json.dumps(question)],
            env=settings,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert ended.returncode == 0, ended.stderr
        assert not token or token.strip() not in ended.stdout + ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    return ask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models that were trained for tests, as WhisperX' image looks for them."""
    return models(tmp_path_factory.mktemp("whisperx"))
