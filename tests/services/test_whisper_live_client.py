"""WhisperLive's own published client, unchanged, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pysubs2
import pytest

from .harness import wait_until
from .program import program
from .test_faster_whisper import ALL, Sample, plain

# The client imports what plays sound and what its other parts need; none of it takes part here.
PACKAGES = ("whisper-live==0.10.0", "websocket-client>=1.8")
STUBS = {
    "scipy": "",
    "pyaudio": """
paInt16 = 8

class PyAudio:
    def open(self, **kwargs):
        raise OSError("no microphone")
""",
}
FROM_FILE = """
import sys
from whisper_live.client import TranscriptionClient

port, audio, cues = sys.argv[1:]
hear = TranscriptionClient(
    "127.0.0.1", int(port), mute_audio_playback=True, output_transcription_path=cues
)
hear(audio)
"""
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
    for name, code in STUBS.items():
        (folder / f"{name}.py").write_text(code)
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


def subtitles(client: Path, port: int, sample: Sample, folder: Path) -> list[tuple[int, int, str]]:
    """The cues that the client writes of a file; it is not told the language."""
    cues = folder / f"{sample.file}.srt"
    ended = subprocess.run(
        [sys.executable, "-c", FROM_FILE, str(port), str(sample.path), str(cues)],
        env=os.environ | {"PYTHONPATH": str(client)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.returncode == 0, ended.stderr
    written = pysubs2.SSAFile.from_string(cues.read_text("utf-8"), format_="srt")
    return [(cue.start, cue.end, cue.plaintext) for cue in written]


def test_its_subtitles_are_what_was_said_and_nothing_else(client: Path, tmp_path: Path) -> None:
    # Few: the client waits for the end in a loop that takes a whole core.
    samples = [ALL["french.wav"], ALL["russian.wav"]]
    with program(tmp_path) as engine:
        wait_until(lambda: engine.http.get("/ready").status_code == 200, 30)
        port = engine.http.base_url.port or 80
        with ThreadPoolExecutor(len(samples)) as clients:
            written = list(clients.map(lambda one: subtitles(client, port, one, tmp_path), samples))
    for sample, cues in zip(samples, written, strict=True):
        assert plain(" ".join(text for _, _, text in cues)) == plain(sample.text), sample.file
        times = [time for start, end, _ in cues for time in (start, end)]
        assert times == sorted(times), sample.file


def test_it_shows_why_it_is_refused(client: Path, tmp_path: Path) -> None:
    with program(tmp_path) as engine:
        port = str(engine.http.base_url.port)
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, port, str(ALL["english.wav"].path), "klingon"],
            env=os.environ | {"PYTHONPATH": str(client)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert "Message from Server: language" in ended.stdout, ended.stdout
    assert "invalid client uid" not in ended.stdout
