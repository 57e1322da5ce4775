"""The speech service without Docker, as docs/without-docker.md says, and a bot that asks it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port

from .parts import ROOT, Proxy, until

DOCS = (ROOT / "docs" / "without-docker.md").read_text("utf-8")
UNIT = (ROOT / "systemd" / "faster-whisper.service").read_text("utf-8")
SPEECH = ROOT / "tests" / "speech"
SAID = "Hello world. Open garden window seven. Thanks."
PYTHON = "/opt/faster-whisper/venv/bin/python"
HOST = "whisper.example.org"
ADDRESSES = dict(re.findall(r"^\| (.+?) \| `(http://127.0.0.1:8890\S*)` \|$", DOCS, re.MULTILINE))

POSTS = """
import os, sys, requests
with open(sys.argv[1], "rb") as voice:
    answer = requests.post(os.environ["WHISPER_LOCAL_URL"] + PATH, files={FIELD: voice}, timeout=60)
print(answer.json()["text"])
"""
BOTS = {
    "posts a `file` to that very address and reads `text`": [POSTS, "", "file"],
    "the same, as OpenAI's API": [POSTS, "", "file"],
    "gives it to a client of OpenAI's API as `base_url`": [
        """
import os, sys, openai
client = openai.OpenAI(base_url=os.environ["WHISPER_LOCAL_URL"], api_key="none", max_retries=0)
with open(sys.argv[1], "rb") as voice:
    print(client.audio.transcriptions.create(model="whisper-1", file=voice).text)
""",
    ],
    "adds `/transcribe`, `/v1/audio/transcriptions` or `/asr` itself": [
        POSTS,
        "/transcribe",
        "file",
    ],
    "posts an `audio_file`, as to whisper-asr-webservice": [POSTS, "", "audio_file"],
}


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """The proxy with the page's configuration; paths, ports and the model are this machine's."""
    [text] = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
    service = json.loads(text)["services"][HOST]
    port = free_port()
    command, *arguments = service["command"]
    assert command == PYTHON
    assert service["env"]["UVICORN_PORT"] == str(service["proxyPort"])
    mine = {
        "UVICORN_PORT": str(port),
        "WHISPER__MODEL": str(SPEECH / "model"),
        "HF_HOME": str(tmp_path / "cache"),
    }
    assert set(mine) == set(service["env"])
    service |= {"command": [sys.executable, *arguments], "env": mine, "proxyPort": port}
    proxy = Proxy(tmp_path, services={HOST: service})
    proxy.start()
    yield proxy
    assert proxy.end() == 0


def transcript(bot: list[str], address: str, environment: dict[str, str]) -> str:
    """What a bot prints that knows the service by its WHISPER_LOCAL_URL alone."""
    script, *names = bot
    for placeholder, value in zip(("PATH", "FIELD"), names, strict=False):
        script = script.replace(placeholder, repr(value))
    ended = subprocess.run(
        [sys.executable, "-c", script, str(SPEECH / "samples" / "demo.wav")],
        env=environment | {"WHISPER_LOCAL_URL": address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_every_kind_of_bot_wakes_the_process_and_gets_its_words(proxy: Proxy) -> None:
    assert set(BOTS) == set(ADDRESSES)
    for kind, bot in BOTS.items():
        address = ADDRESSES[kind].replace("8890", str(proxy.port))
        assert transcript(bot, address, {}) == SAID, kind
        proxy.command("sleep", HOST)
        proxy.until(HOST, state="stopped")


def test_the_unit_keeps_it_running_for_a_bot_that_asks_its_own_port(tmp_path: Path) -> None:
    lines = [line for line in UNIT.splitlines() if line.startswith("Environment=")]
    environment = dict(
        pair.split("=", 1) for line in lines for pair in line.partition("=")[2].split()
    )
    assert environment["UVICORN_PORT"] == "8001"
    [start] = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    command, *arguments = start.split()
    assert command == PYTHON
    port = free_port()
    environment |= {
        "UVICORN_PORT": str(port),
        "HF_HOME": str(tmp_path),
        "WHISPER__MODEL": str(SPEECH / "model"),
    }
    process = subprocess.Popen([sys.executable, *arguments], env=environment)
    try:
        until(lambda: answers(port), "the service answers")
        address = f"http://127.0.0.1:{port}/transcribe"
        assert transcript([POSTS, "", "file"], address, {}) == SAID
    finally:
        process.terminate()
        assert process.wait(30) == 0


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False
