"""The image of WhisperX, as its Compose file builds it: small rights, baked models, no token."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

from .fake_hub import FakeHub, serving
from .harness import wait_until
from .package_index import package_index
from .test_faster_whisper import ALL
from .test_starvation import form, sent
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
            WHISPERX__REVISIONS=json.dumps({PIPELINE: "0" * 40}),
        )
        assert built.returncode == 0, built.stdout
        assert hub.tokens == {TOKEN}
        assert f"GET /api/models/{PIPELINE}/revision/{'0' * 40}" in hub.requests
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


@contextmanager
def reaching(
    hub: FakeHub, folder: Path, *kinds: str, **environment: str
) -> Iterator[tuple[str, httpx.Client]]:
    """Run a service that reaches a hub, and yield its name and a client once it is ready.

    Args:
        kinds: of the models of `folder` that are on its machine.
    """
    port = free_port()
    settings = {
        "UVICORN_HOST": "127.0.0.1",
        "UVICORN_PORT": str(port),
        "WHISPERX__MODEL": "tiny",
        "HF_TOKEN": TOKEN,
        "HF_ENDPOINT": hub.address,
        **environment,
    }
    options = (
        *("--network", "host"),
        *(f"--volume={folder / kind}:/models/{kind}:ro" for kind in kinds),
        *(f"--env={name}={value}" for name, value in settings.items()),
    )
    with (
        container(build(), *options) as name,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as http,
    ):
        wait_until(lambda: state_of(name)["Health"]["Status"] == "healthy", 60)
        wait_until(lambda: http.get("/ready").status_code == 200, 180)
        yield name, http


def test_terms_accepted_meanwhile_are_noticed_without_a_restart(hub: FakeHub, folder: Path) -> None:
    hub.accepted[TOKEN].clear()
    with reaching(hub, folder, "whisper", "alignment") as (name, http):
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


@pytest.mark.parametrize(
    ("kind", "file", "wish"),
    [
        ("alignment", "model.safetensors", {"language": "ru"}),
        ("diarization", "xvec_transform.npz", {"diarize": "true", "align": "false"}),
    ],
)
def test_a_hub_that_falls_silent_over_a_further_model_holds_up_only_who_needs_it(
    hub: FakeHub, folder: Path, kind: str, file: str, wish: dict[str, str]
) -> None:
    """And no longer than they wait, and they are served once it has come."""
    hub.stalls.add(file)
    data = RUSSIAN.path.read_bytes()
    others = {"alignment": "diarization", "diarization": "alignment"}

    def downloads(name: str) -> int:
        return docker("top", name).count("speech_service.work.download")

    def seconds(http: httpx.Client) -> float:
        """How long those wait who need no further model, at worst."""
        taken = []
        for _ in range(3):
            began = time.monotonic()
            path = "/v1/audio/transcriptions"
            answer = http.post(path, files={"file": data}, data={"language": "ru"})
            assert answer.json()["text"] == RUSSIAN.text
            taken.append(time.monotonic() - began)
        return max(taken)

    with reaching(hub, folder, "whisper", others[kind], MAX_JOBS="1") as (name, http):
        usual = seconds(http)
        with ExitStack() as clients:
            for _ in range(3):
                clients.enter_context(sent(http, "/transcribe", form(data, wish)))
            wait_until(
                lambda: (
                    downloads(name) == 1 and file in [Path(each).name for each in hub.downloads()]
                ),
                60,
            )
            assert seconds(http) < 3 * usual + 1
            assert downloads(name) == 1
        wait_until(lambda: downloads(name) == 0, 10)

        with ThreadPoolExecutor(2) as pool:
            files = {"file": data}
            waiting = [pool.submit(http.post, "/transcribe", files=files, data=wish) for _ in "ab"]
            wait_until(lambda: downloads(name) == 1, 60)
            assert seconds(http) < 3 * usual + 1
            assert not any(each.done() for each in waiting)
            hub.stalls.clear()
            for answer in (each.result() for each in waiting):
                assert answer.status_code == 200, answer.text
                found = answer.json()
                assert " ".join(part["text"] for part in found["segments"]) == RUSSIAN.text
                if kind == "diarization":
                    assert found["speakers"]
                else:
                    assert all("score" in word for word in found["word_segments"])
        wait_until(lambda: downloads(name) == 0, 10)


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
