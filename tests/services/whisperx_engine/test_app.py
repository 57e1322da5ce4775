"""The service of this engine: whose clients it serves, and what it leaves for later."""

from __future__ import annotations

import json
import subprocess
import sys

from whisperx_engine.app import create
from whisperx_engine.settings import WhisperXSettings

HEAVY = ("av", "ctranslate2", "faster_whisper", "nltk", "numpy", "pyannote", "torch", "whisperx")
SCRIPT = f"""
import json, sys
from whisperx_engine.app import create
from whisperx_engine.settings import WhisperXSettings
create(WhisperXSettings())
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


def test_its_own_route_takes_the_place_of_the_plain_one() -> None:
    app = create(WhisperXSettings())
    described = app.openapi()["paths"]
    fields = described["/transcribe"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert {"align", "diarize", "output"} <= set(fields["schema"]["properties"])
    assert "/v1/audio/transcriptions" in described
    assert "/asr" not in described
    assert app.title == "whisperx"


def test_nothing_heavy_is_imported_before_the_port_is_bound() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []
