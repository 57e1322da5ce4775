"""WhisperLive's own published client, unchanged, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import wait_until
from .program import program
from .test_faster_whisper import ALL, Sample, plain

# The client imports what plays sound and what its other parts need; none of it takes part here.
PACKAGES = ("whisper-live==0.10.0", "websocket-client>=1.8")
STUBS = ("pyaudio", "scipy")
SCRIPT = """
import json, sys, time, wave
from whisper_live.client import StreamingTranscriptionClient

with wave.open(sys.argv[2]) as file:
    audio = file.readframes(file.getnframes())
with StreamingTranscriptionClient("127.0.0.1", int(sys.argv[1]), lang=sys.argv[3]) as client:
    for start in range(0, len(audio), 8192):
        client.send(audio[start : start + 8192])
        time.sleep(0.02)
print(json.dumps(client.transcript))
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client; it is installed without the machine learning it never uses."""
    folder = tmp_path_factory.mktemp("client")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    installed = subprocess.run([*command, str(folder), *PACKAGES], capture_output=True, text=True)
    if installed.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(installed.stderr, pytrace=False)
        pytest.skip("the client cannot be installed here")
    for name in STUBS:
        (folder / f"{name}.py").write_text("")
    return folder


def heard_by(client: Path, port: int, sample: Sample) -> str:
    """The words that the client has in the end, all of them said to be final."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(port), str(sample.path), sample.language],
        env=os.environ | {"PYTHONPATH": str(client)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    segments = json.loads(ended.stdout.splitlines()[-1])
    assert all(segment["completed"] for segment in segments)
    return plain(" ".join(segment["text"] for segment in segments))


@pytest.mark.parametrize("file", ["english.wav", "pause.wav"])
def test_it_hears_every_word_to_the_last(file: str, client: Path, tmp_path: Path) -> None:
    sample = ALL[file]
    with program(tmp_path) as engine:
        wait_until(lambda: engine.http.get("/ready").status_code == 200, 30)
        assert heard_by(client, engine.http.base_url.port or 80, sample) == plain(sample.text)
