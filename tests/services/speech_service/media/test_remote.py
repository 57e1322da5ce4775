"""Fetching what a client names: public addresses only, whatever the name looks like."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from speech_service.contract.errors import EmptyFile, SpeechError, TooLarge, UrlBlocked
from speech_service.media import remote
from speech_service.media.remote import FetchFailed, fetch, is_public

from ...web import web


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b:1::7f00:1",
        "64:ff9b:1::808:808",
        "2001:0:7f00:1::80ff:fefe",
        "fec0::1",
        "5f00::1",
        "3fff::1",
        "100::1",
        "2001:db8::1",
        "4000::1",
        "192.0.0.8",
        "192.0.0.170",
        "192.88.99.1",
        "198.18.0.1",
        "198.51.100.1",
        "240.0.0.1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "192.0.1.1",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "64:ff9b::808:808",
        "::ffff:8.8.8.8",
    ],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect fails the test."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"a connection was made: {arguments}")

    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.mp3",
        "http://localhost/a.mp3",
        "http://LOCALHOST:8000/a.mp3",
        "http://[::1]/a.mp3",
        "http://[::ffff:127.0.0.1]/a.mp3",
        "http://2130706433/a.mp3",
        "http://0x7f000001/a.mp3",
        "http://0177.0.0.1/a.mp3",
        "http://127.1/a.mp3",
        "http://0/a.mp3",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:password@127.0.0.1/a.mp3",
        "http://user:password@93.184.215.14/a.mp3",
        "file:///etc/passwd",
        "ftp://93.184.215.14/a.mp3",
        "gopher://93.184.215.14/",
        "data:audio/wav;base64,AAAA",
        "http:///a.mp3",
        "http://93.184.215.14:0/a.mp3",
        "http://93.184.215.14:99999/a.mp3",
        "http://93.184.215.14/a\r\nX: y",
        "//127.0.0.1/a",
        "",
        "http://[::127.0.0.1]/a.mp3",
        "http://\u2460\u2461\u2466.0.0.1/a.mp3",
        "http://127\u30020\u30020\u30021/\u00fc",
        "http://\u00fc\u00fc..example/a.mp3",
        "http://" + "\u00fc" * 64 + ".example/a.mp3",
        "http://\ud800.example/a.mp3",
    ],
)
@pytest.mark.usefixtures("no_connection")
def test_what_leads_inside_is_blocked_without_a_connection(url: str) -> None:
    with pytest.raises(UrlBlocked):
        fetch(url, 1000)


@pytest.mark.usefixtures("no_connection")
def test_one_bad_address_among_many_blocks_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str, port: int, **hints: Any) -> list[Any]:
        addresses = ["93.184.215.14", "127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (item, port)) for item in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(UrlBlocked):
        fetch("http://two.example/a.mp3", 1000)


def test_a_name_is_resolved_once_and_the_connection_goes_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(["93.184.215.14", "127.0.0.1"])
    dialled: list[str] = []

    def resolve(host: str, port: int, **hints: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def dial(address: tuple[str, int], *rest: Any) -> socket.socket:
        dialled.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", dial)
    with pytest.raises(FetchFailed):
        fetch("http://rebinding.example/a.mp3", 1000)
    assert dialled == ["93.184.215.14"]


class Server(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/inside":
                self._answer(302, b"", Location="http://localhost:1/secret")
            case "/file":
                self._answer(302, b"", Location="file:///etc/passwd")
            case "/loop":
                self._answer(302, b"", Location="/loop")
            case "/there":
                self._answer(307, b"", Location="/data?x=1")
            case "/un%C3%AFcode" | "/un%EFcode":
                self._answer(200, b"0123456789")
            case "/utf8":
                self._answer(302, b"", Location="/un\u00c3\u00afcode")
            case "/latin1":
                self._answer(302, b"", Location="/un\u00efcode")
            case "/crooked":
                self._answer(302, b"", Location="http://[::1/")
            case "/data":
                self._answer(200, b"0123456789")
            case "/empty":
                self._answer(200, b"")
            case "/endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(bytes(100_000))
                except OSError:
                    pass
            case _:
                self._answer(404, b"no")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


def once() -> Any:
    """Allow the address of the test's own server at the first look, and nothing afterwards."""
    seen = threading.Event()

    def allowed(address: Any) -> bool:
        first = not seen.is_set()
        seen.set()
        return first

    return allowed


@pytest.mark.parametrize("path", ["/inside", "/file"])
def test_a_redirect_is_checked_anew(path: str) -> None:
    with web(Server) as url, pytest.raises(UrlBlocked):
        fetch(url + path, 1000, once())


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/loop", FetchFailed),
        ("/missing", FetchFailed),
        ("/crooked", FetchFailed),
        ("/empty", EmptyFile),
        ("/endless", TooLarge),
    ],
)
def test_what_cannot_be_used_is_refused(path: str, error: type[SpeechError]) -> None:
    with web(Server) as url, pytest.raises(error):
        fetch(url + path, 1_000_000, lambda address: True)


def test_a_slow_body_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TOTAL_SECONDS", 0.0)
    with web(Server) as url, pytest.raises(FetchFailed, match="too long"):
        fetch(url + "/endless", 1 << 40, lambda address: True)


@pytest.mark.parametrize("path", ["/there", "/un\u00efcode", "/un%C3%AFcode", "/utf8", "/latin1"])
def test_a_file_comes_over_a_redirect_and_from_any_path(path: str) -> None:
    with web(Server) as url, fetch(url + path, 1000, lambda address: True) as file:
        assert file.read() == b"0123456789"


def test_a_host_may_have_any_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int, **hints: Any) -> list[Any]:
        asked.append((host, port))
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for url in ("http://b\u00fccher.example/a", "https://B\u00dcCHER.example:99/a"):
        with pytest.raises(FetchFailed, match="unknown"):
            fetch(url, 1000)
    assert asked == [("xn--bcher-kva.example", 80), ("xn--bcher-kva.example", 99)]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX: " + b"x" * 1000 + b"\r\n\r\n" + b"y" * 1000
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000
AGAIN = b"HTTP/1.1 100 Continue\r\n\r\n" * 1000


@pytest.mark.parametrize("answer", [HEAD, CHUNKS, AGAIN], ids=["head", "chunks", "continue"])
def test_who_drips_is_given_up(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is that drips: each byte comes in time, and there is no end of them."""
    monkeypatch.setattr(remote, "TOTAL_SECONDS", 0.6)

    def drip() -> None:
        client, _ = listener.accept()
        with client, suppress(OSError):
            for number in range(len(answer)):
                client.sendall(answer[number : number + 1])
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        with pytest.raises(FetchFailed, match="too long"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/", 1000, lambda address: True)
        assert time.monotonic() - started < 2
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key and the certificate of talks.example, in one file."""
    file = tmp_path_factory.mktemp("certificate") / "talks.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=talks.example -addext subjectAltName=DNS:talks.example"
    )
    subprocess.run(
        [*command.split(), "-keyout", file, "-out", file], check=True, capture_output=True
    )
    return file


@contextmanager
def talks(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, list[str | None], list[str]]]:
    """A TLS server that every name leads to: its port, the names asked for, the host headers."""
    asked: list[str | None] = []
    hosts: list[str] = []

    class Talk(Server):
        def do_GET(self) -> None:
            hosts.append(self.headers["host"])
            super().do_GET()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, _: asked.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with web(Talk, context) as url:
        port = int(url.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        yield port, asked, hosts


def test_a_checked_address_still_has_to_prove_its_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with talks(certificate, monkeypatch) as (port, asked, hosts):
        with fetch(f"https://talks.example:{port}/data", 1000, lambda address: True) as file:
            assert file.read() == b"0123456789"
        assert (asked, hosts) == (["talks.example"], [f"talks.example:{port}"])


def test_a_certificate_for_another_name_gets_no_request(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with talks(certificate, monkeypatch) as (port, asked, hosts):
        with pytest.raises(FetchFailed):
            fetch(f"https://other.example:{port}/data", 1000, lambda address: True)
        assert (asked, hosts) == (["other.example"], [])
