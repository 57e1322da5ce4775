"""What a service writes at every level, while it is sent everything that must not be written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from . import media
from .fake_hub import FakeHub, serving
from .harness import wait_until
from .program import program
from .spoken import url_of
from .test_faster_whisper import ENGLISH
from .whisperx import running, text, transcribed

KEY, TOKEN, WRONG = "key-s3cret", "hf_tokenS3cret", "wrong-s3cret"
QUERY, WORDS, BODY = "query-s3cret", "spoken-s3cret", "body-s3cret"
PLANTED = (KEY, TOKEN, WRONG, QUERY, WORDS, BODY)
LEFT = (WebSocketException, TimeoutError)
PREFIX = "openai-insecure-api-key."


def raw(http: httpx.Client, *lines: str) -> None:
    """Send a head as no library would."""
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0), 5) as client:
        client.sendall("\r\n".join((*lines, "Host: localhost", "", "")).encode("latin-1"))
        client.settimeout(2)
        with suppress(OSError):
            client.recv(1000)


def send_everything(http: httpx.Client) -> None:
    for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}, {"x-api-key": WRONG}):
        http.get(f"/v1/models?secret={QUERY}", headers=headers)
        http.post(f"/api/pull/some/model?secret={QUERY}", headers=headers)
        http.post(
            f"/v1/audio/transcriptions?secret={QUERY}",
            headers=headers,
            files={"file": (f"{BODY}.wav", media.tone(1.0))},
            data={"prompt": WORDS, "hotwords": WORDS, "language": BODY, BODY: BODY},
        )
        http.post(
            "/v1/audio/transcriptions",
            headers=headers,
            files={"file": media.tone(1.0)},
            data={"prompt": WORDS},
        )
        for url in (f"http://127.0.0.1:9/?{QUERY}", f"http://192.88.99.1/ü{QUERY}"):
            http.post("/transcribe/url", headers=headers, json={"url": url})
        http.post("/transcribe/url", headers=headers, content=f'{{"url": "{BODY}')
    for path in ("/v1/realtime", "/", "/v1/audio/transcriptions", "/nothing"):
        url = url_of(http, f"{path}?intent=transcription&secret={QUERY}")
        for given in (KEY, WRONG):
            protocols = [Subprotocol(PREFIX + given), Subprotocol("realtime")]
            headers = {"authorization": f"Bearer {given}"}
            with (
                suppress(WebSocketException, TimeoutError),
                connect(url, subprotocols=protocols) as session,
            ):
                session.send(json.dumps({"type": WORDS, "uid": WORDS, "prompt": WORDS}))
                session.send("[" + WORDS)
                session.recv(timeout=1)
            with (
                suppress(WebSocketException, TimeoutError),
                connect(url, additional_headers=headers) as session,
            ):
                session.send(WORDS.encode())
    for line in (
        f"Sec-WebSocket-Protocol: {PREFIX}{KEY}@@, ;;",
        f"Sec-WebSocket-Key: {KEY}",
        f"Sec-WebSocket-Version: {KEY}",
        f"Sec-WebSocket-Extensions: {KEY}; =",
        f"Connection: {KEY}",
        f"Authorization: Bearer {KEY}\x00",
        f"Cookie {KEY}",
    ):
        raw(
            http,
            f"GET /v1/realtime?secret={QUERY} HTTP/1.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            line,
        )
    raw(http, f"GET /{KEY} {QUERY} HTTP/9.9")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_no_secret_is_written(level: str, tmp_path: Path) -> None:
    with serving(FakeHub({}, set(), {})) as hub:
        environment = {
            "API_KEY": KEY,
            "HF_TOKEN": TOKEN,
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "ALLOW_URL": "1",
        }
        with program(tmp_path, LOG_LEVEL=level, **environment) as service:
            key = {"x-api-key": KEY}
            wait_until(lambda: service.http.get("/ready", headers=key).status_code == 200)
            send_everything(service.http)
    written = service.log.read_text()
    assert [secret for secret in PLANTED if secret in written] == []
    own = [line for line in written.splitlines() if " INFO speech_service" in line]
    assert (own != []) == (level in ("debug", "info"))
    if own:
        assert any("websocket route=/v1/realtime status=101" in line for line in own)
        assert any("websocket route=other status=401" in line for line in own)


@pytest.mark.docker
@pytest.mark.parametrize("level", ["debug", "info"])
def test_no_secret_is_written_where_words_and_speakers_are_told(folder: Path, level: str) -> None:
    """By the second engine, whose libraries are many, and whose work is another process'."""
    settings = {"API_KEY": KEY, "HF_TOKEN": TOKEN, "LOG_LEVEL": level}
    with running(folder, **settings) as service:
        service.http.headers["x-api-key"] = KEY
        service.until_ready()
        found = transcribed(
            service.http,
            ENGLISH.path.read_bytes(),
            diarize="true",
            prompt=WORDS,
            **{"timestamp_granularities[]": "word"},
        )
        del service.http.headers["x-api-key"]
        send_everything(service.http)
        written = service.log
    assert [secret for secret in (*PLANTED, text(found)) if secret in written] == []
    assert " INFO speech_service" in written


@pytest.mark.parametrize("name", ["ALLOW_HOSTS", "MODEL_ALIASES", "WHISPER__TTL", "UVICORN_PORT"])
def test_a_setting_that_cannot_be_used_is_not_repeated(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "faster_whisper_engine"],
        env=os.environ | {name: f"[{KEY}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert name in ended.stderr
    assert KEY not in ended.stdout + ended.stderr
