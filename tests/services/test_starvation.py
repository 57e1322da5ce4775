"""One kind of work cannot starve another: the hub hangs, clients dawdle, and people are served."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from . import media
from .fake_hub import FakeHub, serving
from .harness import wait_until
from .program import MODEL, Program, program
from .spoken import url_of

TOKEN = "hf_" + "Secret" * 5
SPOKEN = media.tone(2.0)


@contextmanager
def silent_hub() -> Iterator[str]:
    """A hub whose connections are accepted and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def sent(
    http: httpx.Client, path: str, body: bytes = b"", length: int | None = None
) -> socket.socket:
    """Send a POST, its body or as much of it as this, and wait for nothing."""
    url = http.base_url
    client = socket.create_connection((url.host, url.port or 80))
    fields = {
        "Host": url.host,
        "Content-Type": "multipart/form-data; boundary=b",
        "Content-Length": length or len(body),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    client.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return client


def form(file: bytes, fields: dict[str, str]) -> bytes:
    """The body of a form, for `sent`."""
    parts = [f'name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    parts.append(b'name="file"; filename="a.wav"\r\n\r\n' + file + b"\r\n")
    head = b"--b\r\nContent-Disposition: form-data; "
    return b"".join(head + part for part in parts) + b"--b--\r\n"


def upload(http: httpx.Client, body: bytes, length: int = 20_000_000) -> socket.socket:
    """Begin to upload a file, and send no more of it than this."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return sent(http, "/v1/audio/transcriptions", head + body, length)


def transcribed(engine: Program, **fields: str) -> httpx.Response:
    path = "/v1/audio/transcriptions"
    return engine.http.post(path, files={"file": SPOKEN}, data=fields)


def answer(client: socket.socket, seconds: float = 20.0) -> str:
    """What comes back until the connection closes, or as much as there is by then."""
    client.settimeout(seconds)
    received = b""
    try:
        while data := client.recv(65536):
            received += data
            if b"\r\n\r\n" in received and b"}}" in received:
                break
    except (TimeoutError, ConnectionResetError):
        pass
    return received.decode()


def children(engine: Program) -> int:
    """How many processes a service has started that have not ended."""
    tasks = (Path("/proc") / str(engine.process.pid) / "task").iterdir()
    return sum(len((task / "children").read_text().split()) for task in tasks)


def seconds_of(engine: Program, rounds: int = 3) -> dict[str, float]:
    """How long people wait for what they ask for, at worst."""

    def worst(ask: Callable[[], httpx.Response]) -> float:
        taken = []
        for _ in range(rounds):
            began = time.monotonic()
            assert ask().status_code == 200
            taken.append(time.monotonic() - began)
        return max(taken)

    return {
        "/health": worst(lambda: engine.http.get("/health")),
        "/v1/models": worst(lambda: engine.http.get("/v1/models")),
        "transcription": worst(lambda: transcribed(engine)),
    }


@pytest.mark.parametrize(
    "path",
    [
        "/api/pull/owner/model{number}",
        "/api/pull/owner/model{number}?stream=true",
        "/api/ps/owner/model{number}",
    ],
)
def test_a_dozen_models_that_never_arrive_hold_up_nobody(path: str, tmp_path: Path) -> None:
    with silent_hub() as hub, ExitStack() as held:
        environment = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": hub, "ALLOW_MODELS": "*"}
        engine = held.enter_context(program(tmp_path, **environment))
        wait_until(lambda: engine.http.get("/ready").status_code == 200)
        before = seconds_of(engine)
        with ExitStack() as pulls:
            for number in range(12):
                client = sent(engine.http, path.format(number=number))
                pulls.enter_context(client)
            wait_until(lambda: children(engine) == 2, 5)
            during = seconds_of(engine)
        wait_until(lambda: children(engine) == 0, 5)
        after = seconds_of(engine)
    for what, seconds in before.items():
        assert during[what] < 3 * seconds + 1.0, (what, during)
        assert after[what] < 2 * seconds + 0.5, (what, after)


def test_other_requests_that_name_such_a_model_hold_up_nobody_either(tmp_path: Path) -> None:
    with silent_hub() as hub, ExitStack() as held:
        environment = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": hub, "MAX_JOBS": "1"}
        engine = held.enter_context(program(tmp_path, **environment))
        wait_until(lambda: engine.http.get("/ready").status_code == 200)
        with ExitStack() as others:
            live = url_of(engine.http, "/v1/realtime?intent=transcription&model=tiny")
            others.enter_context(connect(live, proxy=None))
            for _ in range(3):
                body = form(SPOKEN, {"model": "base"})
                others.enter_context(sent(engine.http, "/v1/audio/transcriptions", body))
            wait_until(lambda: children(engine) == 2, 10)
            assert max(seconds_of(engine).values()) < 5
        wait_until(lambda: children(engine) == 0, 5)


def test_too_many_who_wait_for_models_are_told_to_come_back(tmp_path: Path) -> None:
    with silent_hub() as hub, ExitStack() as held:
        environment = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": hub, "ALLOW_MODELS": "*"}
        environment |= {"MAX_QUEUED": "2", "MAX_JOBS": "1"}
        engine = held.enter_context(program(tmp_path, **environment))
        wait_until(lambda: engine.http.get("/ready").status_code == 200)
        for number in range(4):
            held.enter_context(sent(engine.http, f"/api/pull/owner/model{number}"))
        wait_until(lambda: children(engine) == 2, 5)
        refused = engine.http.post("/api/pull/owner/other")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert max(seconds_of(engine).values()) < 5


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Repositories as clients and operators may name them; what is in them is no real model."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("config.json", "tokenizer.json", "model.bin"):
        (folder / name).write_text(name)
    names = ("Systran/faster-whisper-tiny", "own/model", "own/listed", "private-org/private-model")
    return dict.fromkeys(names, folder)


def test_clients_have_fetched_what_the_operator_lets_them_and_never_with_the_token(
    whisper: dict[str, Path], tmp_path: Path
) -> None:
    with serving(FakeHub(whisper, accepted={TOKEN: set()})) as hub:
        environment = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN}
        environment |= {"ALLOW_MODELS": '["own/listed"]', "HF_HUB_DISABLE_XET": "1"}
        environment["MODEL_ALIASES"] = '{"mine": "own/model"}'
        with program(tmp_path, **environment) as engine:
            refused = engine.http.post("/api/pull/private-org/private-model")
            assert refused.status_code == 404
            assert refused.json()["error"]["code"] == "model_not_allowed"
            assert "ALLOW_MODELS" in refused.json()["error"]["message"]
            spoken = transcribed(engine, model="private-org/private-model")
            assert (spoken.status_code, spoken.json()["error"]["param"]) == (404, "model")
            assert hub.requests == [], "the hub was not even asked"
            assert engine.http.post("/api/pull/tiny").status_code == 201
            assert TOKEN not in hub.tokens, "a size that only a client named"
            for name in ("mine", "own/listed"):
                hub.tokens.clear()
                assert engine.http.post(f"/api/pull/{name}").status_code == 201
                assert TOKEN in hub.tokens, "the operator's own"
            asked = len(hub.requests)
            assert len(engine.http.get("/v1/models").json()["data"]) == 4
            assert len(hub.requests) == asked, "listing asks nobody"


def test_any_model_of_the_hub_may_be_allowed_and_still_has_its_limits(
    whisper: dict[str, Path], tmp_path: Path
) -> None:
    with serving(FakeHub(whisper, accepted={TOKEN: set()})) as hub:
        environment = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN}
        environment |= {"ALLOW_MODELS": "*", "HF_HUB_DISABLE_XET": "1", "MAX_MODEL_BYTES": "30"}
        with program(tmp_path, **environment) as engine:
            refused = engine.http.post("/api/pull/private-org/private-model")
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                404,
                "model_too_large",
            )
            assert hub.downloads() == []
        with program(tmp_path, **environment | {"MAX_MODEL_BYTES": "1000"}) as engine:
            assert engine.http.post("/api/pull/private-org/private-model").status_code == 201
        assert TOKEN not in hub.tokens


def test_a_hub_that_falls_silent_has_its_total_time(
    whisper: dict[str, Path], tmp_path: Path
) -> None:
    with serving(FakeHub(whisper)) as hub:
        hub.stalls.add("model.bin")
        environment = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": hub.address, "MAX_FETCH_SECONDS": "3"}
        with program(tmp_path, **environment) as engine:
            began = time.monotonic()
            late = engine.http.post("/api/pull/tiny")
            assert (late.status_code, late.json()["error"]["code"]) == (503, "fetch_timeout")
            assert 2.9 < time.monotonic() - began < 6
            assert hub.downloads() and children(engine) == 0
            hub.stalls.clear()
            assert engine.http.post("/api/pull/tiny").status_code == 201


def test_the_operators_own_model_is_tried_again_until_it_is_here(tmp_path: Path) -> None:
    with serving(FakeHub({"own/model": MODEL}, accepted={TOKEN: set()})) as hub:
        hub.stalls.add("model.bin")
        environment = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN}
        environment |= {"WHISPER__MODEL": "own/model", "MAX_FETCH_SECONDS": "3"}
        environment |= {"MAX_MODEL_BYTES": "1", "MIN_FREE_DISK": "0.9999"}
        with program(tmp_path, **environment) as engine:
            wait_until(lambda: "MAX_FETCH_SECONDS" in engine.http.get("/ready").text, 20)
            hub.stalls.clear()
            wait_until(lambda: engine.http.get("/ready").status_code == 200, 30)
            assert TOKEN in hub.tokens
            assert transcribed(engine).status_code == 200


def test_uploads_that_are_being_read_are_counted(tmp_path: Path) -> None:
    with program(tmp_path, MAX_UPLOADS="3") as engine, ExitStack() as held:
        slow = [held.enter_context(upload(engine.http, bytes(2_000_000))) for _ in range(3)]
        wait_until(lambda: transcribed(engine).status_code == 429, 10)
        refused = transcribed(engine)
        assert "MAX_UPLOADS" in refused.json()["error"]["message"]
        assert int(refused.headers["Retry-After"]) >= 1
        slow[0].close()
        wait_until(lambda: transcribed(engine).status_code == 200, 10)


def test_an_upload_that_dawdles_gives_its_place_up(tmp_path: Path) -> None:
    with program(tmp_path, UPLOAD_TIMEOUT="1", MAX_UPLOADS="1") as engine:
        with upload(engine.http, b"RIFF") as client:
            began = time.monotonic()
            told = answer(client)
            assert "408" in told.splitlines()[0] and "UPLOAD_TIMEOUT" in told
            assert 0.9 < time.monotonic() - began < 5
        assert transcribed(engine).status_code == 200


def test_a_share_of_the_disk_stays_free(tmp_path: Path) -> None:
    with program(tmp_path, MIN_FREE_DISK="0.9999", TMPDIR=str(tmp_path)) as engine:
        with upload(engine.http, b"", length=20_000_000) as client:
            told = answer(client)
            assert "507" in told.splitlines()[0] and "MIN_FREE_DISK" in told
        assert transcribed(engine).status_code == 200, "what fits into memory needs no disk"


@contextmanager
def greeted(engine: Program, uid: str) -> Iterator[ClientConnection]:
    """A WhisperLive client that has said who it is."""
    with connect(url_of(engine.http, "/"), proxy=None) as socket:
        socket.send(json.dumps({"uid": uid, "language": "en", "task": "transcribe"}))
        yield socket


def test_live_connections_count_from_their_handshake_and_end_where_nobody_greets(
    tmp_path: Path,
) -> None:
    with program(tmp_path, MAX_LIVE_SESSIONS="2") as engine, ExitStack() as held:
        wait_until(lambda: engine.http.get("/ready").status_code == 200)
        url = url_of(engine.http, "/")
        silent = [held.enter_context(connect(url, proxy=None)) for _ in range(2)]
        began = time.monotonic()
        with greeted(engine, "late") as late:
            told = json.loads(late.recv(timeout=10))
            assert (told["uid"], told["status"]) == ("late", "WAIT")
        silent += [held.enter_context(connect(url, proxy=None)) for _ in range(10)]
        with pytest.raises(InvalidStatus) as refusal, connect(url, proxy=None):
            raise AssertionError("nobody is let in any more")
        assert refusal.value.response.status_code == 429
        assert refusal.value.response.headers["Retry-After"]
        for client in silent:
            with pytest.raises(ConnectionClosed):
                while True:
                    client.recv(timeout=15)
        assert 9 < time.monotonic() - began < 15
        with greeted(engine, "now") as now:
            assert json.loads(now.recv(timeout=10))["message"] == "SERVER_READY"
