"""The image of WhisperX, as its Compose file builds it: small rights, baked models, no token."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

from .fake_hub import FakeHub, serving
from .harness import wait_until
from .package_index import package_index
from .test_faster_whisper import ALL
from .whisperx import CONFINED, SHIPPED, UNPUNCTUATED, build, docker

pytestmark = pytest.mark.docker

PIPELINE = "pyannote/speaker-diarization-community-1"
TOKEN = "hf_" + "Hush" * 8
RUSSIAN = ALL["russian.wav"]

INSIDE = """
import json, requests, sys, time
ready = lambda: requests.get("http://127.0.0.1:8000/ready").status_code == 200
for _ in range(600):
    try:
        if ready():
            break
    except requests.ConnectionError:
        pass
    time.sleep(0.2)
with open("/speech.wav", "rb") as speech:
    answer = requests.post(
        "http://127.0.0.1:8000/transcribe",
        files={"file": speech},
        data={"language": "ru", "diarize": "true", "num_speakers": "1"},
    )
print(answer.text)
"""
"""A client that runs in the container: one without a network can be reached from nowhere else."""

GATEWAY = """
import socket, struct
with open("/proc/net/route") as table:
    routes = [line.split() for line in table]
(gateway,) = (route[2] for route in routes if route[1] == "00000000")
print(socket.inet_ntoa(struct.pack("<L", int(gateway, 16))))
"""


@pytest.fixture
def hub(folder: Path) -> Iterator[FakeHub]:
    """A hub that has the trained models, the pipeline among them gated."""
    repositories = {
        "Systran/faster-whisper-tiny": folder / "whisper" / "tiny",
        "jonatasgrosman/wav2vec2-large-xlsr-53-russian": folder / "alignment",
        PIPELINE: folder / "diarization" / PIPELINE,
    }
    # Where containers find this machine. A build that shares its network would share no layers
    # with the others, some of which are large.
    gateway = docker("run", "--rm", build(), "python3", "-c", GATEWAY)
    with serving(FakeHub(repositories, {PIPELINE}, {TOKEN: {PIPELINE}}), gateway) as hub:
        yield hub


def compose_build(
    image: str, network: str = "default", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Build under another name; all that is written is in the output."""
    override = {"services": {"whisperx": {"image": image, "build": {"network": network}}}}
    files = ("--file", str(SHIPPED / "docker-compose.yml"), "--file", "-")
    return subprocess.run(
        ["docker", "compose", "--progress", "plain", *files, "build"],
        input=json.dumps(override),
        env=os.environ | {"TORCH_INDEX": "", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
    )


@contextmanager
def removed(image: str) -> Iterator[str]:
    """Remove an image at the end of the context."""
    try:
        yield image
    finally:
        subprocess.run(["docker", "rmi", "--force", image], capture_output=True)


@contextmanager
def container(image: str, *options: str) -> Iterator[str]:
    """Run an image with the rights of the Compose file."""
    name = f"whisperx-{uuid.uuid4().hex[:8]}"
    docker("run", "--detach", "--name", name, *CONFINED, *options, image)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def log_of(name: str) -> str:
    ended = subprocess.run(["docker", "logs", name], capture_output=True, text=True)
    return ended.stdout + ended.stderr


def state_of(name: str) -> Any:
    return json.loads(docker("inspect", name))[0]["State"]


def test_a_token_bakes_a_gated_model_and_stays_outside(hub: FakeHub) -> None:
    with removed("whisperx-engine:baked") as image:
        built = compose_build(
            image,
            MODELS="whisper:tiny align:ru diarization",
            HF_ENDPOINT=hub.address,
            HF_TOKEN=TOKEN,
        )
        assert built.returncode == 0, built.stdout
        assert hub.tokens == {TOKEN}
        assert TOKEN not in built.stdout
        assert TOKEN not in docker("history", "--no-trunc", image) + docker("inspect", image)
        search = 'find / -xdev -type f -newer /src/requirements.lock -exec grep -lF "$TOKEN" {} +'
        found = subprocess.run(
            ["docker", "run", "--rm", "--user", "0", "--env", "TOKEN", image, "sh", "-c", search],
            env=os.environ | {"TOKEN": TOKEN},
            capture_output=True,
            text=True,
        )
        assert found.stdout == ""
        _hears_without_a_network(image)


def _hears_without_a_network(image: str) -> None:
    options = (
        *("--network", "none", "--env", "HF_HUB_OFFLINE=1", "--env", "WHISPERX__MODEL=tiny"),
        *("--env", f"HF_TOKEN={TOKEN}", "--volume", f"{RUSSIAN.path}:/speech.wav:ro"),
    )
    with container(image, *options) as name:
        answer = json.loads(docker("exec", name, "python3", "-c", INSIDE))
        assert " ".join(part["text"] for part in answer["segments"]) == RUSSIAN.text
        assert answer["speakers"] == ["SPEAKER_00"]
        assert "warnings" not in answer
        assert TOKEN not in docker("exec", name, "cat", "/proc/1/cmdline")
        assert TOKEN not in log_of(name)
        assert "Read-only file system" not in log_of(name)


def test_a_model_that_cannot_be_baked_stops_the_build_with_its_cure(hub: FakeHub) -> None:
    with removed("whisperx-engine:unbaked") as image:
        built = compose_build(image, MODELS="diarization", HF_ENDPOINT=hub.address, HF_TOKEN="")
        assert built.returncode != 0
        assert f"accept its terms at https://huggingface.co/{PIPELINE}" in built.stdout


def test_models_of_ones_own_come_from_another_image(folder: Path) -> None:
    with removed("whisperx-models:test") as source, removed("whisperx-engine:own") as image:
        packing = ["tar", "--mode=go=", "-C", str(folder), "-c", "."]
        packed = subprocess.run(packing, capture_output=True, check=True)
        subprocess.run(["docker", "import", "-", source], input=packed.stdout, check=True)
        built = compose_build(image, MODELS_IMAGE=source)
        assert built.returncode == 0, built.stdout
        # What comes from elsewhere must be readable by the service's own user.
        files = docker("run", "--rm", image, "find", "/models", "-name", "model.*", "-readable")
        assert set(files.split()) == {
            "/models/whisper/tiny/model.bin",
            f"/models/whisper/{UNPUNCTUATED}/model.bin",
            "/models/alignment/model.safetensors",
        }
    # Docker 20.10 can bring them back from its cache, into an image that names none.
    with removed("whisperx-engine:bare") as image:
        assert compose_build(image).returncode == 0
        assert docker("run", "--rm", image, "find", "/models", "-type", "f") == ""


def test_torch_comes_from_the_index_that_is_named() -> None:
    with package_index() as index:
        built = compose_build("whisperx-engine:unbuilt", "host", TORCH_INDEX=f"{index.address}/cpu")
    assert built.returncode != 0
    assert "/cpu/torch/" in index.asked


def test_terms_accepted_meanwhile_are_noticed_without_a_restart(hub: FakeHub, folder: Path) -> None:
    hub.accepted[TOKEN].clear()
    port = free_port()
    settings = {
        "UVICORN_HOST": "127.0.0.1",
        "UVICORN_PORT": str(port),
        "WHISPERX__MODEL": "tiny",
        "HF_TOKEN": TOKEN,
        "HF_ENDPOINT": hub.address,
    }
    options = (
        *("--network", "host"),
        *(f"--volume={folder / kind}:/models/{kind}:ro" for kind in ("whisper", "alignment")),
        *(f"--env={name}={value}" for name, value in settings.items()),
    )
    with (
        container(build(), *options) as name,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as http,
    ):
        wait_until(lambda: state_of(name)["Health"]["Status"] == "healthy", 60)
        wait_until(lambda: http.get("/ready").status_code == 200, 180)
        files = {"file": RUSSIAN.path.read_bytes()}
        refused = http.post("/transcribe", files=files, data={"diarize": "true"})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "hf_terms_not_accepted")
        assert f"https://huggingface.co/{PIPELINE}" in error["message"]
        plain = http.post("/transcribe", files=files)
        assert plain.status_code == 200
        assert "speakers" not in plain.json()

        hub.accepted[TOKEN].add(PIPELINE)
        named = http.post("/transcribe", files=files, data={"diarize": "true", "num_speakers": "1"})
        assert named.json()["speakers"] == ["SPEAKER_00"]
        assert TOKEN not in log_of(name)


def test_it_has_no_rights_and_reports_to_nobody() -> None:
    with container(build(), "--env", "HF_HUB_OFFLINE=1") as name:
        assert docker("exec", name, "id", "-u") == "10001"
        status = docker("exec", name, "cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        writing = subprocess.run(
            ["docker", "exec", name, "touch", "/models/x"], capture_output=True
        )
        assert writing.returncode != 0
        environment = docker("exec", name, "env").splitlines()
        assert {
            "PYANNOTE_METRICS_ENABLED=0",
            "HF_HUB_DISABLE_TELEMETRY=1",
            "ORT_DISABLE_TELEMETRY=1",
        } <= set(environment)
        inside = docker("exec", name, "ls", "/opt/engine/lib/python3.11/site-packages").split()
        assert "whisperx_engine" in inside
        assert "pip" not in inside


def test_the_compose_file_keeps_to_loopback_and_small_rights() -> None:
    shown = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=SHIPPED,
        env=os.environ | {"HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=True,
    )
    service = json.loads(shown.stdout)["services"]["whisperx"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "no"
    assert service["ports"][0]["host_ip"] == "127.0.0.1"
    assert service["ports"][0]["published"] == "8002"
    assert service["environment"]["HF_TOKEN"] == TOKEN
    assert TOKEN not in service["build"]["args"].values()


def test_a_model_runs_no_program_while_it_is_loaded(folder: Path) -> None:
    """Neither by its pickles, nor by the classes that it names."""
    program = Path(__file__).with_name("mistrusted_program.py")
    told = docker(
        *("run", "--rm", "--network", "none", *CONFINED, "--entrypoint", "python3"),
        *("--volume", f"{folder}:/models:ro", "--volume", f"{program}:/program.py:ro"),
        *(build(), "/program.py"),
    )
    outcomes = {name: rest for name, *rest in map(json.loads, told.splitlines())}
    assert outcomes.pop("the usual one") == ["Diarizer", False]
    assert len(outcomes) == 4
    assert all(rest == ["model_mistrusted", False] for rest in outcomes.values()), outcomes
