"""What the engine's README tells users to type works as it stands, but for the address."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import wait_until
from .program import Program, program
from .test_faster_whisper import ENGLISH

README = (Path(__file__).parents[2] / "services/faster-whisper/README.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8001"
CURLS = re.findall(r"^curl .*$", README, re.MULTILINE)
OPENAI, BOT = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program(tmp_path_factory.mktemp("readme")) as started:
        wait_until(lambda: started.http.get("/ready").status_code == 200, 30)
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "speech.wav").write_bytes(ENGLISH.path.read_bytes())
    return tmp_path


def here(text: str, running: Program) -> str:
    assert ADDRESS in text
    return text.replace(ADDRESS, str(running.http.base_url))


def output_of(command: list[str], folder: Path) -> str:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("command", CURLS)
def test_curl(command: str, running: Program, folder: Path) -> None:
    said = output_of(["bash", "-c", here(command, running).replace("curl", "curl -fsS")], folder)
    if "speech.wav" in command and "translations" not in command:
        words = ENGLISH.words[0]["word"]
        assert words.lower() in said.lower()
    else:
        assert json.loads(said)


def test_the_openai_client(running: Program, folder: Path) -> None:
    said = output_of([sys.executable, "-c", here(OPENAI, running)], folder)
    assert said == f"{ENGLISH.text}\n{ENGLISH.text}"


def test_a_bot(running: Program, folder: Path) -> None:
    script = here(BOT, running) + "\nprint(transcript(open('speech.wav', 'rb').read()))"
    assert output_of([sys.executable, "-c", script], folder) == f"{ENGLISH.text}\n"
