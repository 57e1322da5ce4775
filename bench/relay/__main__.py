"""Measure the relay beside nginx, Node http-proxy and aiohttp: `python -m bench.relay`.

Each proxy is pinned to the first core, load and upstream to the second. Rounds alternate between
the proxies and medians are shown, because machines are never quiet. CPU per request is the figure
to trust: it counts user and system time of the proxy's process alone. "varied" requests differ in
target and one field each time, so that nothing a proxy remembers of the last one helps it.

With --before, the relay of another checkout takes part under the same interpreter: what a change
costs is told by one run, not by two.

Needs nginx and wrk; Node http-proxy takes part where `npm install http-proxy` was run in the
folder given with --node-modules.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import time
from pathlib import Path

from bench.relay.proxies import HOST
from bench.relay.stage import OURS, Proxy, resident_megabytes, stage, table

FIELDS = [
    f"Host: {HOST}",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0)",
    "Accept: text/html,application/xhtml+xml",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Referer: https://a.example/page",
    "Cookie: session=0123456789abcdef; theme=dark",
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: https",
    "X-Custom: something",
]

VARIED = """
local n = 0
request = function()
  n = n + 1
  wrk.headers["X-Custom"] = "value-" .. n
  return wrk.format("GET", "/index.html?n=" .. n)
end
"""


def requests(proxy: Proxy, connections: int, seconds: int, *, script: Path | None = None) -> None:
    """Load one proxy with small requests and note CPU, rate and latency."""
    key = f"{connections}" + (" varied" if script else "")
    fields = [part for line in FIELDS for part in ("-H", line)]
    before = proxy.cpu_seconds()
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        + (["-s", str(script)] if script else [])
        + [*fields, f"http://127.0.0.1:{proxy.port}/index.html"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    spent = proxy.cpu_seconds() - before
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", out)
    if "Non-2xx" in out or (broken and any(map(int, broken.groups()))):
        raise SystemExit(f"{proxy.name} made errors:\n{out}")
    found = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert found is not None and rate is not None
    proxy.cpu.setdefault(key, []).append(spent / int(found[1]) * 1000)
    proxy.rate.setdefault(key, []).append(float(rate[1]))
    for store, share in ((proxy.p50, "50%"), (proxy.p99, "99%")):
        latency = re.search(share + r"\s+([\d.]+)(us|ms|s)", out)
        assert latency is not None
        store.setdefault(key, []).append(
            float(latency[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[latency[2]]
        )


def transfer(proxy: Proxy, direction: str, folder: Path) -> tuple[float, float, float]:
    """Move 500 MB; returns MB/s, CPU seconds and growth of memory in MB."""
    large = folder / "files" / "large"
    before, memory = proxy.cpu_seconds(), resident_megabytes(proxy)
    url = f"http://127.0.0.1:{proxy.port}"
    if direction == "up":
        host = "sink.example" if proxy.name in OURS else HOST
        what = ["-T", str(large), "-H", "Expect:", f"{url}/sink", "-H", f"Host: {host}"]
    else:
        what = [f"{url}/large", "-H", f"Host: {HOST}"]
    began = time.perf_counter()
    subprocess.run(["taskset", "-c", "1", "curl", "-sSf", "-o", "/dev/null", *what], check=True)
    seconds = time.perf_counter() - began
    return (
        500 / seconds,
        proxy.cpu_seconds() - before,
        resident_megabytes(proxy) - memory,
    )


def tunnels(proxy: Proxy, count: int, messages: int) -> tuple[float, float, float, float]:
    """Open WebSocket-like tunnels and bounce messages; returns ms p50 of one on its own,
    messages/s of all, KiB per tunnel, CPU s per 1,000 messages."""
    host = "sink.example" if proxy.name in OURS else HOST
    ask = (
        f"GET /sink HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ).encode()
    memory = resident_megabytes(proxy)
    os.sched_setaffinity(0, {1})
    lines = []
    for _ in range(count):
        line = socket.create_connection(("127.0.0.1", proxy.port))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(ask)
        assert line.recv(4096).startswith(b"HTTP/1.1 101")
        lines.append(line)
    kib = (resident_megabytes(proxy) - memory) * 1e6 / 1024 / count
    times = []
    for _ in range(500):
        began = time.perf_counter()
        lines[0].sendall(b"x" * 64)
        lines[0].recv(64)
        times.append(time.perf_counter() - began)
    before, began = proxy.cpu_seconds(), time.perf_counter()
    for _ in range(messages // count):
        for line in lines:
            line.sendall(b"x" * 64)
        for line in lines:
            line.recv(64)
    seconds = time.perf_counter() - began
    cpu = proxy.cpu_seconds() - before
    for line in lines:
        line.close()
    sent = messages // count * count
    return statistics.median(times) * 1000, sent / seconds, kib, cpu / sent * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--node-modules", type=Path)
    parser.add_argument("--before", type=Path, help="a checkout of this project to compare with")
    parser.add_argument("--only", help="comma-separated names of proxies")
    parser.add_argument("--skip", default="", help="any of small,large,tunnels")
    options = parser.parse_args()
    for program in ("nginx", "wrk", "curl", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install nginx-light wrk curl")
    names = ["nginx", "nginx tuned", "aiohttp", "ours"]
    if options.node_modules:
        names.insert(2, "node")
    if options.before:
        names.append("before")
    if options.only:
        names = options.only.split(",")
    with stage(names, node_modules=options.node_modules, before=options.before) as on:
        proxies, folder = on.proxies, on.folder
        script = folder / "varied.lua"
        script.write_text(VARIED)
        small = [proxy for proxy in proxies if proxy.name != "nginx tuned"]
        rss = {proxy.name: resident_megabytes(proxy) for proxy in proxies}
        if "small" not in options.skip:
            for _ in range(options.rounds):
                for connections in (1, 32, 256):
                    for proxy in small:
                        requests(proxy, connections, options.seconds)
                for proxy in small:
                    requests(proxy, 32, options.seconds, script=script)
            for key in ("1", "32", "256", "32 varied"):
                rows = []
                base = next((p for p in small if p.name == "nginx"), small[0])
                for proxy in small:
                    cpu = statistics.median(proxy.cpu[key])
                    ratio = cpu / statistics.median(base.cpu[key])
                    rows.append([
                        proxy.name,
                        f"{statistics.median(proxy.rate[key]):.0f}",
                        f"{statistics.median(proxy.p50[key]):.3f}",
                        f"{statistics.median(proxy.p99[key]):.2f}",
                        f"{cpu:.4f}",
                        f"{ratio:.2f}",
                        f"{rss[proxy.name]:.0f}",
                    ])  # fmt: skip
                header = ["proxy", "req/s", "p50 ms", "p99 ms", "CPU s/1000", "x nginx", "RSS MB"]
                table(f"1 KiB answers, {key} connections", header, rows)
        if "large" not in options.skip:
            for direction in ("up", "down"):
                rows = []
                for proxy in proxies:
                    runs = [transfer(proxy, direction, folder) for _ in range(options.rounds)]
                    speed, cpu, growth = (
                        statistics.median(run[0] for run in runs),
                        statistics.median(run[1] for run in runs),
                        max(run[2] for run in runs),
                    )
                    rows.append([proxy.name, f"{speed:.0f}", f"{cpu:.2f}", f"{growth:+.1f}"])
                table(f"500 MB {direction}", ["proxy", "MB/s", "CPU s", "RSS MB"], rows)
        if "tunnels" not in options.skip:
            rows = []
            for proxy in proxies:
                if proxy.name in ("aiohttp", "nginx tuned"):
                    continue
                p50, rate, kib, cpu = tunnels(proxy, 1000, 100_000)
                rows.append([proxy.name, f"{p50:.3f}", f"{rate:.0f}", f"{kib:.1f}", f"{cpu:.4f}"])
            table(
                "1,000 open tunnels, messages of 64 bytes",
                ["proxy", "p50 ms", "messages/s", "KiB each", "CPU s/1000"],
                rows,
            )


if __name__ == "__main__":
    main()
