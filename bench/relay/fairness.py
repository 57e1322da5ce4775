"""How long a good client waits while others do their worst: `python -m bench.relay.fairness`.

A client asks one service fifty times a second, by turns on a connection that it keeps and on a new
one. Meanwhile one connection, or twenty, send what is cheap to send and dear to read, or make
another service answer in such a way, and three hundred clients do not read what they asked for.
Shown is how long the good client waited for its answers, for each proxy in turn; and for the slow
readers what memory the proxy had before, with them, and 10 s after they had left.

The proxy has the first core. All others share the second, where the good client and its service go
before the rest: waiting for a processor is not waiting for the proxy. With --before, the relay of
another checkout takes part. Needs nginx, and for the priorities root.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import sys
import time
from pathlib import Path

import psutil

from bench.relay.proxies import HOST
from bench.relay.stage import OURS, Proxy, resident_megabytes, running, stage, table
from bench.relay.worst import CASES, GOOD, Case

PROBES_PER_SECOND = 50
PATIENCE_SECONDS = 60.0
AFTERWARDS_SECONDS = 10


def ask(line: socket.socket) -> None:
    """Ask for 1 KiB, and read it."""
    line.sendall(GOOD)
    got = b""
    while not got.endswith(b"x" * 1024):
        more = line.recv(65536)
        if not more:
            raise SystemExit(f"the good client was refused: {got[:200]!r}")
        got += more


def ask_for(seconds: float, port: int) -> list[float]:
    """Ask again and again; returns how long each answer took in ms, connecting included.

    Who is not answered within a minute gives up, and asks no more.
    """
    took: list[float] = []
    here = ("127.0.0.1", port)
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(socket.create_connection(here, timeout=PATIENCE_SECONDS))
        began = time.perf_counter()
        end = began + seconds
        while began < end:
            try:
                if len(took) % 2:
                    with socket.create_connection(here, timeout=PATIENCE_SECONDS) as fresh:
                        ask(fresh)
                else:
                    ask(kept)
            except TimeoutError:
                end = 0
            now = time.perf_counter()
            took.append((now - began) * 1000)
            time.sleep(max(0.0, began + 1 / PROBES_PER_SECOND - now))
            began = time.perf_counter()
    return took


def measure(proxy: Proxy, case: Case, count: int, seconds: float, folder: Path) -> list[str]:
    """One row of the table."""
    host = "sink.example" if proxy.name in OURS else HOST
    argv = [sys.executable, "-m", "bench.relay.worst", str(proxy.port), host, case.name, str(count)]
    memory = [resident_megabytes(proxy)]
    with running(argv, 1, folder, "worst.log") as worst:
        took = ask_for(seconds, proxy.port)
        memory.append(resident_megabytes(proxy))
        if worst.poll() is not None:
            raise SystemExit(f"the others gave up: {(folder / 'worst.log').read_text()}")
    if not case.reads:
        time.sleep(AFTERWARDS_SECONDS)
        memory.append(resident_megabytes(proxy))
    figures = statistics.median(took), sorted(took)[int(len(took) * 0.99)], max(took)
    return [
        case.name,
        str(count),
        proxy.name,
        *(f"{each:.1f}" for each in figures),
        "" if case.reads else ", ".join(f"{each:.0f}" for each in memory),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--before", type=Path, help="a checkout of this project to compare with")
    parser.add_argument("--only", help="comma-separated names of proxies")
    parser.add_argument("--cases", default="", help="comma-separated words of cases")
    options = parser.parse_args()
    names = ["nginx unbuffered", "ours"] + (["before"] if options.before else [])
    if options.only:
        names = options.only.split(",")
    words = options.cases.split(",")
    rows = []
    with stage(names, before=options.before, sink_module="bench.relay.worst") as on:
        with contextlib.suppress(psutil.AccessDenied):
            for process in (on.upstream, psutil.Process(), *(each.process for each in on.proxies)):
                process.nice(-15)
        psutil.Process().cpu_affinity([1])
        for case in CASES:
            if any(word in case.name for word in words):
                for count in case.connections:
                    for proxy in on.proxies:
                        rows.append(measure(proxy, case, count, options.seconds, on.folder))
    header = ["others", "connections", "proxy", "p50 ms", "p99 ms", "worst ms", "RSS MB"]
    table("A good client while others do their worst", header, rows)


if __name__ == "__main__":
    main()
