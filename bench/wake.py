"""How long after a program listens does the request that woke it arrive there?

A tiny program notes when it listens and when a request that is no probe reaches it, on the clock
that all processes of a machine share (CLOCK_MONOTONIC). It is woken through the real proxy, again
and again:

    python bench/wake.py --backend process --starts 50
    python bench/wake.py --backend compose --starts 50   # needs a Docker Engine and Compose v2

Printed per backend: the overhead (listening to reached) as p50, p90 and max, the whole of a cold
request, and for Compose what `docker start` alone takes until the same program listens, in turn
with the wakes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = "bench.example"
PROGRAM = r"""
import json, socket, sys, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen(16)
listening = time.monotonic()
while True:
    connection, _ = server.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = connection.recv(65536)
        if not chunk:
            break
        head += chunk
    reached = time.monotonic()
    body = json.dumps({"listening": listening, "reached": reached}).encode()
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                           % (len(body), body))
    except OSError:
        pass
    connection.close()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def service(backend: str, folder: Path, port: int) -> dict[str, object]:
    """The service's part of `config.json`; writes the program or the Compose file."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    if backend == "process":
        command = [sys.executable, "-S", str(program), "127.0.0.1", str(port)]
        return {"command": command, "proxyPort": port, "idleTimeout": None, "stopTimeout": "1s"}
    (folder / "docker-compose.yml").write_text(
        json.dumps(
            {
                "services": {
                    "web": {
                        "image": "python:3.11-slim",
                        "command": ["python", "-S", "/program.py", "0.0.0.0", "80"],
                        "init": True,
                        "volumes": [f"{program}:/program.py:ro"],
                        "ports": [f"127.0.0.1:{port}:80"],
                    }
                }
            }
        )
    )
    return {"composeDir": str(folder), "proxyPort": port, "idleTimeout": None, "stopTimeout": "1s"}


@contextmanager
def proxy(config: Path, port: int) -> Iterator[None]:
    """The real proxy in a process of its own."""
    argv = [sys.executable, "-m", "autostart_proxy", "run", "--config", str(config)]
    running = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield
    finally:
        running.terminate()
        running.wait(30)


def cli(config: Path, *words: str) -> None:
    argv = [sys.executable, "-m", "autostart_proxy", *words, "--config", str(config)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def get(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/measure", headers={"Host": HOST})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {body!r}")
    return dict(json.loads(body))


def bare_start(folder: Path, port: int) -> float:
    """`docker start` without the proxy: milliseconds until the program listens."""
    [container] = subprocess.run(
        ["docker", "compose", "ps", "-aq"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.split()
    began = time.monotonic()
    subprocess.run(["docker", "start", container], check=True, stdout=subprocess.DEVNULL)
    while True:
        try:
            return (get(port)["listening"] - began) * 1000
        except (OSError, http.client.HTTPException):
            time.sleep(0.005)


def quantiles(values: list[float]) -> str:
    values = sorted(values)
    p90 = values[min(len(values) - 1, int(len(values) * 0.9))]
    return f"p50 {statistics.median(values):7.2f}   p90 {p90:7.2f}   max {values[-1]:7.2f} ms"


def measure(backend: str, starts: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listen, port = free_port(), free_port()
        config = folder / "config.json"
        config.write_text(
            json.dumps(
                {
                    "listen": f"127.0.0.1:{listen}",
                    "controlSocket": f"{name}/control.sock",
                    "services": {HOST: service(backend, folder, port)},
                }
            )
        )
        overhead: list[float] = []
        whole: list[float] = []
        bare: list[float] = []
        try:
            with proxy(config, listen):
                get(listen)  # creates the containers, which is not what is measured
                for _ in range(starts):
                    cli(config, "sleep", HOST)
                    began = time.monotonic()
                    seen = get(listen)
                    whole.append((time.monotonic() - began) * 1000)
                    overhead.append((seen["reached"] - seen["listening"]) * 1000)
                    if backend == "compose" and len(bare) < starts // 5:
                        cli(config, "sleep", HOST)
                        bare.append(bare_start(folder, port))
        finally:
            if backend == "compose":
                down = ["docker", "compose", "down", "-t", "0"]
                subprocess.run(down, cwd=folder, check=True, capture_output=True)
        print(f"{backend}: {starts} starts")
        print(f"  listening to reached        {quantiles(overhead)}")
        print(f"  cold request, sent to done  {quantiles(whole)}")
        if bare:
            print(f"  `docker start` to listening {quantiles(bare)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backend", choices=["process", "compose"], action="append")
    parser.add_argument("--starts", type=int, default=50)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for backend in arguments.backend or ["process", "compose"]:
        measure(backend, arguments.starts)


if __name__ == "__main__":
    main()
