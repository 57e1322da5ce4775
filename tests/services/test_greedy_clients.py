"""What clients send without end, without bounds or without bottom costs a real service little."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from speech_service.http.sockets import LONGEST_MESSAGE_BYTES
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from . import media
from .harness import PLAIN_FAMILIES, wait_until
from .program import Program, program
from .spoken import url_of

MB = 1 << 20
TOO_MANY = LONGEST_MESSAGE_BYTES + 1
DEPTHS = (50, 900, 980, 20_000)
"""Some that can be read, some in which writing again gives up, and one without bottom."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program(tmp_path_factory.mktemp("service"), ALLOW_URL="1") as running:
        wait_until(lambda: running.http.get("/ready").status_code == 200)
        sent = running.http.post("/v1/audio/transcriptions", files={"file": media.tone(1.0)})
        assert sent.status_code == 200
        yield running


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


def answer(connection: socket.socket) -> str:
    try:
        return connection.recv(100_000).decode()
    except ConnectionResetError:
        return "reset"


def test_fields_of_a_form_have_a_limit_of_their_own(service: Program) -> None:
    """Also those that are recordings by their names, of which each could be kept in memory."""
    before = service.resident_bytes
    address = "127.0.0.1", service.http.base_url.port or 0
    kind = "Content-Type: multipart/form-data; boundary=b"
    for name in ("f{}", "file", "known_speaker_references[]"):
        clients = [socket.create_connection(address, 10) for _ in range(4)]
        for client in clients:
            client.sendall(head("/v1/audio/transcriptions", "Content-Length: 400000000", kind))
            try:
                for number in range(190):
                    field = name.format(number)
                    client.sendall(
                        f'--b\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'.encode()
                        + b"x" * 1_000_000
                        + b"\r\n"
                    )
            except OSError:
                pass  # it has been refused
        assert service.resident_bytes - before < 100 * MB
        for client in clients:
            assert answer(client).startswith(("HTTP/1.1 413", "HTTP/1.1 422", "reset"))
            client.close()


@pytest.mark.parametrize("path", ["/transcribe/url", "/api/ps/x", "/api/pull/x", "/v1/models"])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b", "a/b"])
def test_no_body_is_kept_whole(service: Program, path: str, kind: str) -> None:
    before = service.resident_bytes
    address = "127.0.0.1", service.http.base_url.port or 0
    with socket.create_connection(address, 10) as client:
        client.sendall(head(path, "Transfer-Encoding: chunked", f"Content-Type: {kind}"))
        try:
            client.sendall(b'8\r\n{"url":"\r\n')
            for _ in range(100):
                client.sendall(b"100000\r\n" + b"a" * MB + b"\r\n")
        except OSError:
            pass  # it has been refused
        assert service.resident_bytes - before < 30 * MB
        said = answer(client)
    if path == "/transcribe/url" and said != "reset":
        assert said.startswith("HTTP/1.1 413")
        assert "1048576 bytes" in said


def test_a_body_that_declares_too_much_is_not_read(service: Program) -> None:
    address = "127.0.0.1", service.http.base_url.port or 0
    with socket.create_connection(address, 10) as client:
        client.sendall(head("/transcribe/url", f"Content-Length: {MB + 1}"))
        assert answer(client).startswith("HTTP/1.1 413")
    with socket.create_connection(address, 10) as client:
        client.sendall(head("/transcribe/url", "Content-Length: 2") + b"{}")
        assert answer(client).startswith("HTTP/1.1 422")


def test_the_framework_reads_no_body() -> None:
    """It would keep it whole before a route can say anything."""
    with_body = [
        route
        for router in PLAIN_FAMILIES
        for route in router.routes
        if getattr(route, "body_field", None)
    ]
    assert with_body == []


def test_a_session_keeps_what_it_knows_alone(service: Program) -> None:
    with connect(url_of(service.http, "/v1/realtime"), proxy=None, max_size=None) as client:
        client.recv()
        before = service.resident_bytes
        for number in range(130):
            stuff = {f"k{number}_{other}": "x" * 1000 for other in range(900)}
            session = {"audio": {"input": {"transcription": stuff | {"prompt": "Fresnel"}}}}
            client.send(json.dumps({"type": "session.update", "session": session | stuff}))
            told = str(client.recv())
            assert json.loads(told)["type"] == "session.updated"
            assert len(told) < 1000
        assert service.resident_bytes - before < 60 * MB


@pytest.mark.parametrize("path", ["/", "/v1/realtime", "/v1/audio/transcriptions"])
@pytest.mark.parametrize("data", ["x" * TOO_MANY, b"x" * TOO_MANY], ids=["text", "binary"])
def test_a_message_has_an_end(service: Program, path: str, data: str | bytes) -> None:
    with connect(url_of(service.http, path), proxy=None) as client:
        with pytest.raises(ConnectionClosedError) as closed:
            client.send(data)
            while True:
                client.recv(timeout=10)
        # Message too big (RFC 6455, section 7.4.1), if what is under way leaves that to hear.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


def test_nothing_is_unpacked_on_arrival(service: Program) -> None:
    with connect(url_of(service.http, "/"), proxy=None) as client:
        assert client.protocol.extensions == []


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_nested_fields_are_refused_as_fields(service: Program, depth: int, opening: str) -> None:
    closing = {"[": "]"}.get(opening, "}")
    nested = opening * depth + "1" + closing * depth
    for text in (nested, opening * depth):
        sent = service.http.post(
            "/v1/audio/transcriptions",
            files={"file": media.tone(1.0)},
            data={"chunking_strategy": text, "hotwords": text, "language": text},
        )
        assert (sent.status_code, sent.json()["error"]["code"]) == (422, "invalid_field")
        sent = service.http.post("/transcribe/url", content=text)
        assert (sent.status_code, sent.json()["success"]) in ((400, False), (422, False))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    "message",
    [
        "NESTED",
        '{"type": NESTED}',
        '{"event_id": NESTED}',
        '{"type": "session.update", "session": NESTED}',
        '{"type": "session.update", "session": {"audio": {"input": {"format": NESTED}}}}',
        '{"type": "session.update", "session": {"audio": {"input": {"transcription": NESTED}}}}',
        '{"type": "session.update", "session": {"input_audio_transcription": {"prompt": NESTED}}}',
        '{"type": "input_audio_buffer.append", "audio": NESTED}',
    ],
)
def test_a_session_goes_on_after_a_nested_message(
    service: Program, depth: int, message: str
) -> None:
    nested = message.replace("NESTED", '{"a":' * depth + "1" + "}" * depth)
    with connect(url_of(service.http, "/v1/realtime"), proxy=None) as client:
        client.recv()
        for text in (nested, nested.replace("}", "")):
            client.send(text)
            told = json.loads(client.recv(timeout=10))
            assert told["type"] in ("error", "session.updated")
        client.send(json.dumps({"type": "input_audio_buffer.clear"}))
        assert json.loads(client.recv(timeout=10))["type"] == "input_audio_buffer.cleared"


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("field", ["uid", "model", "language", "audio_format"])
def test_a_nested_greeting_is_answered(service: Program, depth: int, field: str) -> None:
    nested = "[" * depth + "1" + "]" * depth
    with connect(url_of(service.http, "/"), proxy=None) as client:
        client.send(f'{{"uid": "u", "{field}": {nested}}}')
        told: dict[str, Any] = json.loads(client.recv(timeout=10))
        assert told.get("status") == "ERROR" or told.get("message") == "SERVER_READY"


def test_a_name_that_is_repeated_is_short(service: Program) -> None:
    with connect(url_of(service.http, "/"), proxy=None) as client:
        client.send(json.dumps({"uid": "u" * 2000}))
        assert "up to 1000 characters" in str(client.recv(timeout=10))


def test_the_log_has_no_traceback(service: Program) -> None:
    """Comes last: of all that was sent before."""
    assert "Traceback" not in Path(service.log).read_text()
