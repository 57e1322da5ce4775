"""A stopped container behind Nginx: it wakes, answers, streams, and falls asleep again.

Everything is real: Nginx with TLS and a password, `autostart-proxy run`, containers, clients. What
the proxy does for its operators is in `end_to_end/test_operation.py`.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import websockets.sync.client

from tests.end_to_end.parts import (
    BASIC,
    PASSWORD,
    ROOT,
    USER,
    Client,
    Engine,
    plain_engine,
    run,
    until,
)
from tests.end_to_end.stage import Stage, set_stage, sign_certificate  # noqa: F401 - fixtures
from tests.services import whisperx
from tests.speech.dialogues import DIALOGUES, Dialogue, Turn, dialogue
from tests.speech.synthesis import write_wav

pytestmark = pytest.mark.docker

HOST = "service.example.org"
SPEECH = ROOT / "tests" / "speech"
MB = 1_000_000


@pytest.fixture(scope="session")
def image() -> None:
    """The engine's image, built as its Compose file says."""
    run("docker", "compose", "build", folder=ROOT / "services" / "faster-whisper")


def official(stage: Stage, host: str) -> openai.OpenAI:
    """OpenAI's client as users set it up.

    Nginx and OpenAI's API both want the Authorization header. The service needs no key here, so the
    password of Nginx takes its place; the key is never sent.
    """
    return openai.OpenAI(
        base_url=f"https://{host}:{stage.nginx.port}/v1",
        api_key="unused",
        default_headers={"Authorization": BASIC},
        http_client=openai.DefaultHttpxClient(verify=stage.through_nginx.context or True),
        max_retries=0,
        _strict_response_validation=True,
    )


def test_the_openai_client_has_speech_transcribed_by_a_service_that_sleeps_again(
    stage: Stage, image: None
) -> None:
    engine = stage.keep(plain_engine(stage.folder))
    host = "whisper.example.org"
    shipped = json.loads((ROOT / "config.json").read_text())["services"][host]
    mine = {"composeDir": str(engine.folder), "proxyPort": engine.port, "idleTimeout": "3s"}
    stage.proxy.config["services"][host] = shipped | mine
    stage.start()
    assert not engine.runs()
    with official(stage, host) as client:
        told = json.loads((SPEECH / "samples" / "samples.json").read_text())
        texts = {sample["file"]: words(sample["text"]) for sample in told if sample["text"]}

        def transcribe(file: str) -> list[str]:
            with (SPEECH / "samples" / file).open("rb") as recording:
                answer = client.audio.transcriptions.create(model="whisper-1", file=recording)
            return words(answer.text)

        assert transcribe("demo.wav") == texts["demo.wav"]
        assert engine.runs()
        for file in ("demo.wav", "english.wav", "french.wav", "russian.wav"):
            assert transcribe(file) == texts[file]
        assert engine.starts() == 1
        engine.until_stopped()
        assert not engine.runs()
        assert transcribe("demo.wav") == texts["demo.wav"]
        assert engine.starts() == 2


def test_a_dialogue_wakes_whisperx_which_tells_who_said_what_and_gives_its_memory_back(
    stage: Stage, tmp_path: Path
) -> None:
    environment = {"WHISPERX__MODEL": "tiny", "HF_HUB_OFFLINE": "1"}
    engine = stage.keep(Engine(stage.folder, "whisperx", whisperx.models(tmp_path), **environment))
    host = "whisperx.example.org"
    shipped = json.loads((ROOT / "config.json").read_text())["services"][host]
    mine = {"composeDir": str(engine.folder), "proxyPort": engine.port, "idleTimeout": "3s"}
    stage.proxy.config["services"][host] = shipped | mine
    stage.start()
    made = dialogue(DIALOGUES[0])
    write_wav(tmp_path / "dialogue.wav", made.speech)
    recording = (tmp_path / "dialogue.wav").read_bytes()
    before = available_bytes()
    assert not engine.runs()
    with httpx.Client(
        base_url=f"https://{host}:{stage.nginx.port}",
        auth=(USER, PASSWORD),
        verify=stage.through_nginx.context or True,
        timeout=180,
        trust_env=False,
    ) as client:
        answer = client.post(
            "/transcribe",
            files={"file": recording},
            data={"diarize": "true"},
        )
    found = answer.json()
    assert [segment["text"] for segment in found["segments"]] == [turn.text for turn in made.turns]
    names = {turn.voice: segment["speaker"] for turn, segment in spoken(made, found)}
    assert len(set(names.values())) == 2
    for turn, segment in spoken(made, found):
        assert segment["speaker"] == names[turn.voice]
        assert [word["start"] for word in segment["words"]] == [
            pytest.approx(word.start, abs=0.2) for word in turn.words
        ]
    with official(stage, host) as openai_client:
        diarized = openai_client.audio.transcriptions.create(
            model="whisper-1", file=("dialogue.wav", recording), response_format="diarized_json"
        )
    assert [(part.text, part.speaker) for part in diarized.segments] == [
        (segment["text"], segment["speaker"]) for segment in found["segments"]
    ]
    used = before - available_bytes()
    assert used > 300 * MB
    engine.until_stopped()
    until(lambda: before - available_bytes() < used / 3, "the memory is free again")


def spoken(made: Dialogue, found: dict[str, Any]) -> Iterator[tuple[Turn, dict[str, Any]]]:
    """The turns of a dialogue beside what was heard of them."""
    return zip(made.turns, found["segments"], strict=True)


def available_bytes() -> int:
    """Memory that a new program could have, from /proc/meminfo."""
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert available is not None
    return int(available[1]) * 1024


def words(text: str) -> list[str]:
    """What is heard: words without case and punctuation."""
    return re.findall(r"\w+", text.lower())


def test_a_stopped_container_answers_the_first_request_and_is_stopped_again(stage: Stage) -> None:
    project = stage.service(HOST, idleTimeout="1s")
    stage.start()
    assert not project.runs()
    cold = stage.through_nginx.get(HOST)
    assert (cold.status, project.runs()) == (200, True)
    project.until_stopped()
    assert not project.runs()
    again = stage.through_nginx.get(HOST)
    assert again.status == 200
    assert again.life != cold.life
    assert project.starts() == 2


def test_two_hundred_first_requests_get_their_own_answers_from_one_start(stage: Stage) -> None:
    project = stage.service(HOST, allowed=("end",))
    stage.start()
    bodies = [random.Random(n).randbytes(n * 331) for n in range(200)]
    replies = [stage.soon(stage.through_nginx.request, "POST", HOST, "/echo", b) for b in bodies]
    stage.proxy.until(HOST, held=200)
    project.allow("listen")
    for body, reply in zip(bodies, replies, strict=True):
        assert reply.result().status == 200
        assert reply.result().body == body
    assert project.starts() == 1


class Upload:
    """500 MB of noise, no two blocks alike, digested as they are sent.

    Attributes:
        sent: bytes that were taken off our hands.
    """

    SIZE = 500 * MB
    BLOCK = MB // 4

    def __init__(self) -> None:
        self.sent = 0
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        noise = random.Random(1).randbytes(self.BLOCK)
        for number in range(self.SIZE // self.BLOCK):
            block = number.to_bytes(8, "big") + noise[8:]
            self._digest.update(block)
            yield block
            self.sent += len(block)

    def until_stuck(self) -> int:
        """Wait until nothing more has been taken for a second; how much it was."""
        while True:
            before = self.sent
            time.sleep(1)
            if before == self.sent:
                return before

    @property
    def receipt(self) -> bytes:
        return f"{self._digest.hexdigest()} {self.SIZE}".encode()


@pytest.mark.parametrize("way", ["through_nginx", "direct"])
def test_an_upload_of_500_mb_waits_for_the_start_and_arrives_whole(stage: Stage, way: str) -> None:
    project = stage.service(HOST, allowed=("end",))
    stage.start()
    client: Client = getattr(stage, way)
    before = stage.proxy.memory_bytes("VmRSS")
    upload = Upload()
    length = str(Upload.SIZE)
    reply = stage.soon(client.request, "POST", HOST, "/digest", upload, Content_Length=length)
    stage.proxy.until(HOST, held=1)
    until(project.runs, "the request's head starts the container")
    # What is taken before the service is ready is what fits into sockets and Nginx's buffer.
    assert upload.until_stuck() < 25 * MB
    assert not reply.done()
    project.allow("listen")
    assert reply.result().status == 200
    assert reply.result().body == upload.receipt
    assert stage.proxy.memory_bytes("VmHWM") - before < 50 * MB


def test_a_websocket_opens_over_a_cold_start(stage: Stage) -> None:
    project = stage.service(HOST, idleTimeout="1s")
    stage.start()
    with websockets.sync.client.connect(
        f"wss://{HOST}:{stage.nginx.port}/socket",
        ssl=stage.through_nginx.context,
        additional_headers={"Authorization": BASIC},
        subprotocols=[websockets.Subprotocol("first"), websockets.Subprotocol("second")],
        open_timeout=60,
        proxy=None,
        max_size=None,
    ) as socket:
        assert socket.subprotocol == "second", "the service chooses"
        blob = random.Random(2).randbytes(MB)
        for message in ("hello", "жёлудь", "x" * 300, blob):
            socket.send(message)
            assert socket.recv(timeout=60) == message
        assert socket.ping().wait(60)
        [opened] = {project.state("StartedAt")}
        # A tunnel is a lease, also while nothing passes through it.
        time.sleep(1.5)
        socket.send("still here")
        assert socket.recv(timeout=60) == "still here"
        assert project.state("StartedAt") == opened
    project.until_stopped()


def test_events_pass_one_by_one_and_a_stream_longer_than_the_idle_time_is_not_cut(
    stage: Stage,
) -> None:
    project = stage.service(HOST, idleTimeout="1s")
    stage.start()
    connection = stage.through_nginx.connect(HOST)
    connection.request("GET", "/events?40,0.1", headers=stage.through_nginx.headers())
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    delays: list[float] = []
    arrivals: list[float] = []
    while line := answer.readline():
        if line.startswith(b"data: "):
            arrivals.append(time.monotonic())
            delays.append(arrivals[-1] - float(line.removeprefix(b"data: ")))
    connection.close()
    assert len(delays) == 40
    assert statistics.median(delays) < 0.1
    assert max(delays) < 1, "a busy machine may be late, but nothing waits for the next event"
    assert arrivals[-1] - arrivals[0] > 3, "they did not come all at once"
    project.until_stopped()
    assert project.starts() == 1


def test_the_password_opens_nginx_and_reaches_no_container(stage: Stage) -> None:
    stage.service(HOST)
    stage.start()
    reply = stage.through_nginx.get(HOST, "/headers", X_Mine="kept")
    names = {name.lower(): value for name, value in reply.json()}
    assert names["x-mine"] == "kept"
    assert names["x-forwarded-proto"] == "https"
    assert names["x-forwarded-for"].split(", ")[0] == "127.0.0.1"
    assert "authorization" not in names
    for secret in (PASSWORD, USER, BASIC.split()[1]):
        assert secret not in reply.body.decode()
    before = len(stage.proxy.log.find("request "))
    wrong = stage.through_nginx.get(HOST, Authorization="Basic d3Jvbmc6d3Jvbmc=")
    assert wrong.status == 401
    stage.through_nginx.get(HOST)
    stage.proxy.log.until("request ", times=before + 1)
    assert not stage.proxy.log.find(" status=401 "), "the wrong password never reached the proxy"
