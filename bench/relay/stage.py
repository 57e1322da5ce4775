"""The proxies on one machine, each pinned to the first core, with all else on the second."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.relay.proxies import HOST, NGINX_PROXY, NGINX_TUNINGS, NGINX_UPSTREAM, NODE

OURS = ("ours", "before")
"""What routes by host rather than by path."""


@dataclass
class Proxy:
    """A running proxy, and what was measured of it so far."""

    name: str
    port: int
    process: psutil.Process
    cpu: dict[str, list[float]] = field(default_factory=dict)
    rate: dict[str, list[float]] = field(default_factory=dict)
    p50: dict[str, list[float]] = field(default_factory=dict)
    p99: dict[str, list[float]] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(port: int, log: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}: {log.read_text()}")


def wait_for_sink(proxy: Proxy) -> None:
    """Wait until a proxy passes requests on to the sink: one that holds them looks idle."""
    host = "sink.example" if proxy.name in OURS else HOST
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as line:
        line.sendall(f"GET /sink HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        if not (said := line.recv(4096)).startswith(b"HTTP/1.1 204 "):
            raise SystemExit(f"{proxy.name} does not reach the sink: {said!r}")


@contextlib.contextmanager
def running(
    argv: list[str], core: int, folder: Path, log: str, checkout: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core until the block ends."""
    with open(folder / log, "wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *argv],
            stdout=output,
            stderr=output,
            cwd=checkout,
            env={**os.environ, "BENCH_FOLDER": str(folder), "PYTHONPATH": str(checkout or ".")},
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


@dataclass
class Stage:
    """The proxies and what stands behind them; `upstream` is the service of all good clients."""

    proxies: list[Proxy]
    folder: Path
    upstream: psutil.Process


@contextlib.contextmanager
def stage(
    names: list[str],
    *,
    node_modules: Path | None = None,
    before: Path | None = None,
    sink_module: str = "bench.relay.sink",
) -> Iterator[Stage]:
    """Bring up the upstreams and all proxies.

    Args:
        names: of proxies.
        before: a checkout of this project, for the proxy `before`.
        sink_module: the program behind `/sink`; its argument is a port.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "files").mkdir()
        (folder / "files" / "index.html").write_bytes(b"x" * 1024)
        with open(folder / "files" / "large", "wb") as large:
            large.truncate(500_000_000)
        files, sink = free_port(), free_port()
        config = folder / "upstream.conf"
        config.write_text(NGINX_UPSTREAM.format(folder=folder, port=files))
        upstream = stack.enter_context(
            running(["nginx", "-c", str(config)], 1, folder, "upstream.log")
        )
        sink_argv = [sys.executable, "-m", sink_module, str(sink)]
        stack.enter_context(running(sink_argv, 1, folder, "sink.log"))
        module = [sys.executable, "-m", "bench.relay.proxies"]
        proxies = []
        for each in names:
            port = free_port()
            ports = [str(port), str(files), str(sink)]
            if each.startswith("nginx"):
                own = folder / f"{each}.conf"
                own.write_text(
                    NGINX_PROXY.format(
                        folder=folder,
                        port=port,
                        files=files,
                        sink=sink,
                        tuning=NGINX_TUNINGS.get(each, ""),
                    )
                )
                argv = ["nginx", "-c", str(own)]
            elif each == "node":
                script = folder / "node.js"
                script.write_text(NODE)
                os.environ["NODE_PATH"] = str(node_modules)
                argv = ["node", str(script), *ports]
            else:
                argv = [*module, "ours" if each == "before" else each, *ports]
            checkout = before if each == "before" else None
            process = stack.enter_context(running(argv, 0, folder, f"{each}.out", checkout))
            wait_for(port, folder / f"{each}.out")
            proxies.append(Proxy(each, port, psutil.Process(process.pid)))
        wait_for(files, folder / "upstream.log")
        wait_for(sink, folder / "sink.log")
        for proxy in proxies:
            wait_for_sink(proxy)
        yield Stage(proxies, folder, psutil.Process(upstream.pid))


def resident_megabytes(proxy: Proxy) -> float:
    return float(proxy.process.memory_info().rss) / 1e6


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}")
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
