"""The parts of the whole, each as its users have it: containers, the proxy, Nginx, a client."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from autostart_proxy.control.client import ask
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("program.py")
COMMAND = Path(sys.executable).with_name("autostart-proxy")

PATIENCE_SECONDS = 60.0
"""For what has no limit of its own; a busy machine must not fail the suite."""

USER, PASSWORD = "alice", "open sesame"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def run(*command: str | Path, folder: Path | None = None, input: str | None = None) -> str:
    """Run a program to its end; its standard output."""
    done = subprocess.run(command, cwd=folder, input=input, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


@contextmanager
def witness() -> Iterator[docker.DockerClient]:
    """Docker's own SDK: what the proxy says of containers is checked by somebody else."""
    with contextlib.closing(docker.from_env()) as engine:
        yield engine


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what nobody tells."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    def listening() -> bool:
        assert process.poll() is None, f"ended with {process.returncode} instead of listening"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listening, f"listening on port {port}")


class Log:
    """The lines that a process writes, as they come."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, args=(process.stderr,))
        self._reader.start()

    def _read(self, stream: Iterable[bytes]) -> None:
        for line in stream:
            with self._more:
                self.lines.append(line.decode().rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._over = True
            self._more.notify_all()

    def find(self, pattern: str) -> list[re.Match[str]]:
        """Where the pattern occurs, at most once per line."""
        return [found for line in list(self.lines) if (found := re.search(pattern, line))]

    def until(self, pattern: str, times: int = 1) -> re.Match[str]:
        """The last of so many lines, once they are there."""
        with self._more:
            enough = self._more.wait_for(
                lambda: len(self.find(pattern)) >= times or self._over, PATIENCE_SECONDS
            )
            found = self.find(pattern)
            assert enough and len(found) >= times, f"no {pattern!r} in {self.lines}"
            return found[times - 1]

    def join(self) -> None:
        self._reader.join()


class Project:
    """A Compose project with one container, created but not running.

    Attributes:
        port: where it is published.
    """

    def __init__(self, parent: Path, compose: str) -> None:
        self.name = f"autostart-end-to-end-{uuid.uuid4().hex[:12]}"
        self.port = free_port()
        self.folder = parent / self.name
        self.folder.mkdir()
        text = compose.replace("PORT", str(self.port)).replace("NAME", self.name)
        (self.folder / "docker-compose.yml").write_text(text)

    def create(self) -> Project:
        run("docker", "compose", "create", folder=self.folder)
        return self

    def container(self, engine: docker.DockerClient) -> Container:
        [container] = engine.containers.list(all=True, filters={"label": self._label})
        return container

    def state(self, what: str) -> str:
        """A value of the container's `State`, as the engine tells it."""
        with witness() as engine:
            return str(self.container(engine).attrs["State"][what])

    def runs(self) -> bool:
        """What `docker ps` shows."""
        with witness() as engine:
            return engine.containers.list(filters={"label": self._label}) != []

    def until_stopped(self) -> None:
        with witness() as engine:
            self.container(engine).wait(timeout=60)

    def starts(self) -> int:
        """How many starts Docker's events tell of, ever."""
        with witness() as engine:
            filters = {"event": "start", "label": self._label}
            end = int(datetime.now(UTC).timestamp()) + 1  # answered when this second is over
            events = engine.events(since=end - 3600, until=end, filters=filters)
            return sum(1 for _ in events)

    @property
    def _label(self) -> str:
        return f"com.docker.compose.project={self.name}"

    def down(self) -> None:
        run("docker", "compose", "down", "-t", "0", "-v", folder=self.folder)


PROGRAM_COMPOSE = f"""
services:
  web:
    image: python:3.11-slim
    command: [python, -u, /program.py, /signals, "8000"]
    network_mode: bridge # spares the making of a network
    volumes: ["{PROGRAM}:/program.py:ro", "./signals:/signals:ro"]
    ports: ["127.0.0.1:PORT:8000"]
"""


class Program(Project):
    """`program.py` in a container."""

    def __init__(self, parent: Path, allowed: Iterable[str]) -> None:
        super().__init__(parent, PROGRAM_COMPOSE)
        self._signals = self.folder / "signals"
        self._signals.mkdir()
        for what in allowed:
            self.allow(what)

    def allow(self, what: str, text: str = "") -> None:
        """Let the program go on; see there."""
        (self._signals / f".{what}").write_text(text)
        (self._signals / f".{what}").rename(self._signals / what)

    def output(self) -> str:
        """What the container has written."""
        with witness() as engine:
            return self.container(engine).logs().decode().strip()


ENGINE_COMPOSE = """
services:
  SERVICE:
    extends: {file: SHIPPED/docker-compose.yml, service: SERVICE}
    container_name: NAME
    ports: !override ["127.0.0.1:PORT:8000"]
    environment: ENVIRONMENT
    volumes: ["MODELS:/models:ro"]
volumes: {huggingface: {}, uploads: {}}
secrets: {hf_token: {environment: HF_TOKEN}, pip_conf: {file: /dev/null}}
"""


class Engine(Project):
    """A shipped speech service, as its users adapt it: with models of their own.

    Args:
        service: its name and that of its folder.
        models: mounted as `/models`.
        environment: settings of the service.
    """

    def __init__(self, parent: Path, service: str, models: Path, **environment: str) -> None:
        parts = {
            "SERVICE": service,
            "SHIPPED": str(ROOT / "services" / service),
            "MODELS": str(models),
            "ENVIRONMENT": json.dumps(environment),
        }
        compose = ENGINE_COMPOSE
        for placeholder, value in parts.items():
            compose = compose.replace(placeholder, value)
        super().__init__(parent, compose)


def plain_engine(parent: Path) -> Engine:
    """The engine for plain transcription, with the model that was trained for tests."""
    return Engine(
        parent,
        "faster-whisper",
        ROOT / "tests" / "speech",
        WHISPER__MODEL="/models/model",
        WHISPER__CPU_THREADS="1",
    )


class Proxy:
    """`autostart-proxy run` with a `config.json`.

    Attributes:
        port: where it listens.
        environment: more variables, or other values, for its next start.
        log: what it writes to standard error since its last start.
    """

    def __init__(self, folder: Path, **config: Any) -> None:
        self.port = free_port()
        self.environment: dict[str, str] = {}
        self.file = folder / "config.json"
        self.socket = folder / "control.sock"
        self.config: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "controlSocket": str(self.socket),
            "services": {},
            **config,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def save(self) -> None:
        """Replace the configuration file, as editors do."""
        self.file.with_suffix(".new").write_text(json.dumps(self.config, indent=2))
        self.file.with_suffix(".new").rename(self.file)

    def start(self) -> None:
        self.save()
        self._process = subprocess.Popen(
            [COMMAND, "run", "--config", self.file],
            env={**os.environ, **self.environment},
            stderr=subprocess.PIPE,
        )
        self.log = Log(self._process)
        until_listening(self.port, self._process)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        status = self.process.wait(PATIENCE_SECONDS)
        self.log.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._process = None
        return status

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self, *words: str) -> str:
        """Run `autostart-proxy WORDS` against this proxy."""
        return run(COMMAND, *words, "--config", self.file)

    def status(self, host: str) -> dict[str, Any]:
        services: list[dict[str, Any]] = ask(self.socket, {"command": "status"})["services"]
        [status] = [each for each in services if each["host"] == host]
        return status

    def until(self, host: str, **wanted: Any) -> None:
        """Wait until the status of a service says this."""
        until(
            lambda: wanted.items() <= self.status(host).items(),
            f"{host} {wanted}",
        )

    def memory_bytes(self, field: str) -> int:
        """`VmRSS` or, since the start, `VmHWM`: memory that is resident."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


def make_certificate(folder: Path) -> ssl.SSLContext:
    """Sign a certificate for all of example.org; what a client needs to trust it."""
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=example.org",
        "-addext", "subjectAltName=DNS:*.example.org",
        "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem",
    )  # fmt: skip
    return ssl.create_default_context(cafile=str(folder / "fullchain.pem"))


class Nginx:
    """Nginx with the shipped files, their paths and ports moved into a folder of its own.

    Attributes:
        port: where it speaks TLS.
    """

    def __init__(self, folder: Path, proxy_port: int, certificate: Path) -> None:
        self.port = free_port()
        self._plain_port = free_port()
        self._folder = folder
        self._proxy_port = proxy_port
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, hosts: Iterable[str]) -> None:
        """Start with a site for each host, made as the shipped one says: by replacing its name."""
        shutil.copytree(ROOT / "nginx", self._folder)
        shared = self._folder / "conf.d" / "autostart-proxy.conf"
        shared.write_text(
            replaced(shared.read_text(), {r"127\.0\.0\.1:8890": f"127.0.0.1:{self._proxy_port}"})
        )
        sites = self._folder / "sites-enabled"
        sites.mkdir()
        for host in hosts:
            (sites / f"{host}.conf").write_text(self._site(host))
        password = run("openssl", "passwd", "-apr1", PASSWORD)
        (self._folder / "htpasswd").write_text(f"{USER}:{password}\n")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {self._folder}/{kind};" for kind in kinds)
        (self._folder / "nginx.conf").write_text(
            f"""
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            pid {self._folder}/pid;
            error_log stderr crit;
            events {{ worker_connections 4096; }}
            http {{
              access_log off;
              {temporary}
              include conf.d/*.conf;
              include sites-enabled/*.conf;
            }}
            """
        )
        command = [installed("nginx"), "-e", "stderr", "-c", str(self._folder / "nginx.conf")]
        self._process = subprocess.Popen(command)
        until_listening(self.port, self._process)

    def _site(self, host: str) -> str:
        shipped = (self._folder / "sites-available" / "whisper.example.org.conf").read_text()
        changes = {
            r"/etc/letsencrypt/live/[^/]+/": f"{self._certificate}/",
            r"whisper\.example\.org": host,
            r"\n *listen +\[::\].*": "",
            r"(listen +)80\b": rf"\g<1>127.0.0.1:{self._plain_port}",
            r"(listen +)443\b": rf"\g<1>127.0.0.1:{self.port}",
        }
        return replaced(shipped, changes)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_SECONDS)


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with each pattern replaced; each must be there."""
    for pattern, new in changes.items():
        text, times = re.subn(pattern, new, text)
        assert times, f"{pattern} is nowhere in the shipped file"
    return text


def installed(program: str) -> str:
    """The path of a program; where `CI` is set its lack is a failure."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if (at := shutil.which(program, path=path)) is not None:
        return at
    if os.environ.get("CI"):
        pytest.fail(f"needs {program}", pytrace=False)
    pytest.skip(f"needs {program}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got; times of CLOCK_MONOTONIC."""

    status: int
    headers: Message
    body: bytes
    began: float
    ended: float

    @property
    def life(self) -> str:
        """Which run of the container answered."""
        return self.headers["X-Life"]

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests to a port of 127.0.0.1, over TLS where it has a context."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.context = context

    def connect(self, host: str) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection(host, self.port, timeout=PATIENCE_SECONDS)
        return http.client.HTTPSConnection(
            host, self.port, timeout=PATIENCE_SECONDS, context=self.context
        )

    def headers(self, more: Mapping[str, str] = {}) -> dict[str, str]:
        """What every request carries."""
        return {**({"Authorization": BASIC} if self.context else {}), **more}

    def request(
        self, method: str, host: str, path: str = "/", body: Any = None, **headers: str
    ) -> Reply:
        """One request on a connection of its own; `_` in names of headers stands for `-`."""
        connection = self.connect(host)
        try:
            began = time.monotonic()
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, self.headers(fields))
            answer = connection.getresponse()
            content = answer.read()
            return Reply(answer.status, answer.headers, content, began, time.monotonic())
        finally:
            connection.close()

    def get(self, host: str, path: str = "/", **headers: str) -> Reply:
        return self.request("GET", host, path, **headers)


class Report:
    """A request whose answer has begun and goes on when the container is allowed to."""

    def __init__(self, client: Client, host: str) -> None:
        self._connection = client.connect(host)
        self._connection.request("GET", "/report", headers=client.headers())
        self._answer: http.client.HTTPResponse = self._connection.getresponse()
        assert self._answer.readline() == b"begun\n"
        self.life = self._answer.headers["X-Life"]

    def rest(self) -> bytes:
        try:
            return self._answer.read()
        finally:
            self._connection.close()
