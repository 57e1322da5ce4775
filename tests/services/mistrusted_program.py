"""Runs in the image of WhisperX: offers it diarization models that would run a program.

Prints for each what came of it, and whether the program ran.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

PROOF = Path("/tmp/proof")
USUAL = Path("/models/diarization/pyannote/speaker-diarization-community-1")
RUN = f"open({str(PROOF)!r}, 'w')"


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (RUN,)


def offered(name: str) -> Path:
    folder = Path("/tmp", name)
    shutil.copytree(USUAL, folder)
    return folder


def checkpoint(folder: Path, part: str, **more: Any) -> None:
    """Put something into a part of a pipeline, beside what is there."""
    import torch

    file = folder / part / "pytorch_model.bin"
    held = torch.load(file, weights_only=False)
    held["pyannote.audio"] |= more.pop("pyannote", {})
    torch.save(held | more, file)


def models() -> dict[str, Path]:
    found = {"the usual one": USUAL}
    for part in ("segmentation", "embedding"):
        found[f"a pickle in {part}"] = offered(part)
        checkpoint(found[f"a pickle in {part}"], part, more=Evil())
    (Path("/tmp/elsewhere.py")).write_text(RUN)
    found["a module"] = offered("module")
    architecture = {"module": "elsewhere", "class": "Model"}
    checkpoint(found["a module"], "segmentation", pyannote={"architecture": architecture})
    found["a pipeline"] = offered("pipeline")
    named = {"name": "subprocess.Popen", "params": {"args": ["touch", str(PROOF)]}}
    (found["a pipeline"] / "config.yaml").write_text(json.dumps({"pipeline": named}))
    return found


def main() -> None:
    import sys

    from whisperx_engine.engine import WhisperX
    from whisperx_engine.settings import WhisperXSettings

    sys.path.append("/tmp")
    os.environ.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD", None)
    offers = models()
    for name, folder in offers.items():
        engine = WhisperX(WhisperXSettings(diarize_model=str(folder), offline=True, model="tiny"))
        engine.prepare(lambda name: nullcontext())
        PROOF.unlink(missing_ok=True)
        try:
            outcome = type(engine.load("diarization:")).__name__
        except Exception as error:
            outcome = getattr(error, "code", repr(error))
        print(json.dumps([name, outcome, PROOF.exists()]), flush=True)


if __name__ == "__main__":
    main()
