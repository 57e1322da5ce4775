"""The service of this engine: whose clients it serves, and what it leaves for later."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress

import pytest
from faster_whisper_engine.app import FAMILIES, create
from faster_whisper_engine.settings import EngineSettings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..harness import serve
from ..spoken import url_of

HEAVY = ("av", "ctranslate2", "faster_whisper", "huggingface_hub", "numpy", "onnxruntime", "torch")
SCRIPT = f"""
import json, sys
import pytest
from faster_whisper_engine.app import FAMILIES, create
from faster_whisper_engine.settings import EngineSettings
create(EngineSettings())
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


def test_it_serves_the_clients_of_older_servers() -> None:
    app = create(EngineSettings())
    described = set(app.openapi()["paths"])
    assert {"/transcribe", "/transcribe/url", "/asr", "/detect-language"} <= described
    assert "/v1/audio/transcriptions" in described
    assert app.title == "faster-whisper"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/realtime", '"session.created"'),
        ("/v1/audio/transcriptions?language=xx", "unknown language"),
        ("/", '"ERROR"'),
    ],
)
def test_it_listens_to_live_speech_in_three_protocols(path: str, answer: str) -> None:
    families = [family.router for family in FAMILIES]
    with serve(families=families) as http, connect(url_of(http, path), proxy=None) as socket:
        with suppress(ConnectionClosed):  # one of them has said no already
            socket.send("no greeting")
        assert answer in str(socket.recv(timeout=10))


def test_nothing_heavy_is_imported_before_the_port_is_bound() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []
