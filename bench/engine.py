"""What the faster-whisper service costs beside the library that does its work.

    python -m bench.engine MODEL RECORDING...

MODEL is a directory, RECORDING any audio file. Printed:

- start: seconds from the command to the first answer of `/health` and of `/ready`, and the
  processor seconds until `/health`;
- overhead: a request against the library's own `decode_audio` and `transcribe` with the same
  options, alternating, medians; goal: at most 5 % more. Processor seconds (`cpu_`) hold on a busy
  machine too;
- together: clients that send one request after another, 1, 2, 4 and 8 at the same time, to services
  that run 1, 4 and 8 transcriptions at once (MAX_JOBS; 1 decodes each by itself), in turn: requests
  per second, median latency, processor seconds per request; beside them the library's own
  BatchedInferencePipeline on one recording as long as theirs together. Needs a model of real size:
  `python -m bench.reciter` makes one;
- parallel: 50 requests at once, how many were answered 200 and 429, and the memory it took;
- memory: resident size before a model is loaded, with it, and after it was unloaded.

Needs `pip install services/common services/faster-whisper httpx`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

PATH = "/v1/audio/transcriptions"
PARTS = ("start", "overhead", "together", "parallel", "memory")
FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@contextmanager
def service(model: Path, **settings: str) -> Iterator[tuple[httpx.Client, int, float]]:
    """Run the service; yield a client, its process id, and when it was started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        **os.environ,
        "WHISPER__MODEL": str(model),
        "HF_HUB_OFFLINE": "1",
        "UVICORN_PORT": str(port),
        "LOG_LEVEL": "warning",
        **settings,
    }
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "faster_whisper_engine"], env=environment)
    base = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=base, timeout=600, trust_env=False) as client:
            yield client, process.pid, started
    finally:
        process.terminate()
        process.wait()


def wait(client: httpx.Client, path: str) -> None:
    """Wait for a 200."""
    while True:
        try:
            if client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.002)


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used (proc(5): fields utime and stime)."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(model: Path, times: int) -> dict[str, float]:
    """Measure how long a start takes."""
    health, ready, cpu = [], [], []
    for _ in range(times):
        with service(model) as (client, pid, started):
            wait(client, "/health")
            health.append(time.perf_counter() - started)
            cpu.append(cpu_seconds(pid))
            wait(client, "/ready")
            ready.append(time.perf_counter() - started)
    return {
        "health_p50": statistics.median(health),
        "health_max": max(health),
        "ready_p50": statistics.median(ready),
        "cpu_until_health": statistics.median(cpu),
    }


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of the first members and that of the second."""
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def overhead(model: Path, recording: Path, times: int) -> dict[str, float]:
    """Compare requests with calls of the library, in turn."""
    from faster_whisper import WhisperModel, decode_audio
    from faster_whisper_engine.cpus import available_cpus

    library = WhisperModel(str(model), "cpu", compute_type="int8", cpu_threads=available_cpus())
    data = recording.read_bytes()
    direct: list[tuple[float, float]] = []
    served: list[tuple[float, float]] = []
    with service(model, WHISPER__TTL="-1") as (client, pid, _):
        wait(client, "/ready")
        for _ in range(times + 1):
            clock, cpu = time.perf_counter(), time.process_time()
            segments, _info = library.transcribe(
                decode_audio(str(recording)), vad_filter=True, temperature=FALLBACK
            )
            text = "".join(segment.text for segment in segments).strip()
            direct.append((time.perf_counter() - clock, time.process_time() - cpu))
            clock, cpu = time.perf_counter(), cpu_seconds(pid)
            answer = client.post(PATH, files={"file": (recording.name, data)}).json()
            served.append((time.perf_counter() - clock, cpu_seconds(pid) - cpu))
            assert answer["text"] == text, (answer["text"], text)
    # The first of each warms caches.
    library_seconds, library_cpu = (
        statistics.median(kind) for kind in zip(*direct[1:], strict=True)
    )
    service_seconds, service_cpu = (
        statistics.median(kind) for kind in zip(*served[1:], strict=True)
    )
    return {
        "library": library_seconds,
        "service": service_seconds,
        "percent": (service_seconds / library_seconds - 1) * 100,
        "cpu_library": library_cpu,
        "cpu_service": service_cpu,
        "cpu_percent": (service_cpu / library_cpu - 1) * 100,
    }


JOBS = (1, 4, 8)
CLIENTS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Load:
    """What some clients got out of a service: seconds in all, and of each request."""

    wall: float
    cpu: float
    latencies: list[float]

    def report(self) -> dict[str, float]:
        requests = len(self.latencies)
        return {
            "per_second": requests / self.wall,
            "p50": statistics.median(self.latencies),
            "cpu_per_request": self.cpu / requests,
        }


def load(base: str, pid: int, data: bytes, clients: int, requests: int) -> Load:
    """Let clients send requests, each one after another; all must get the same text."""

    def send(_: int) -> list[tuple[float, str]]:
        answers = []
        with httpx.Client(base_url=base, timeout=600, trust_env=False) as client:
            for _ in range(requests):
                clock = time.perf_counter()
                answer = client.post(PATH, files={"file": data})
                answer.raise_for_status()
                answers.append((time.perf_counter() - clock, str(answer.json()["text"])))
        return answers

    clock, cpu = time.perf_counter(), cpu_seconds(pid)
    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for part in pool.map(send, range(clients)) for answer in part]
    found = Load(
        time.perf_counter() - clock, cpu_seconds(pid) - cpu, [seconds for seconds, _ in answers]
    )
    assert len({text for _, text in answers}) == 1
    return found


def pipeline(library: Any, recording: Path, clients: int) -> Load:
    """Let the library decode as many recordings as one, all its windows in a batch."""
    from faster_whisper import BatchedInferencePipeline, decode_audio

    audio = decode_audio(str(recording))
    whole, seconds = np.tile(audio, clients), len(audio) / 16_000
    clips = [{"start": n * seconds, "end": (n + 1) * seconds} for n in range(clients)]
    clock, cpu = time.perf_counter(), time.process_time()
    batched: Any = BatchedInferencePipeline
    segments, _ = batched(library).transcribe(
        whole, batch_size=clients, vad_filter=False, clip_timestamps=clips
    )
    assert len(list(segments)) >= clients
    wall = time.perf_counter() - clock
    return Load(wall, time.process_time() - cpu, [wall] * clients)


def together(model: Path, recording: Path, times: int) -> dict[str, object]:
    """Measure what it gains to decode several requests at once."""
    from faster_whisper import WhisperModel
    from faster_whisper_engine.cpus import available_cpus

    library = WhisperModel(str(model), "cpu", compute_type="int8", cpu_threads=available_cpus())
    data = recording.read_bytes()
    rounds: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as running:
        services = {}
        for jobs in JOBS:
            entered = running.enter_context(service(model, WHISPER__TTL="-1", MAX_JOBS=str(jobs)))
            services[f"{jobs} jobs"] = entered[:2]
            wait(entered[0], "/ready")
            entered[0].post(PATH, files={"file": data})
        for _ in range(times):
            for clients in CLIENTS:
                for name, (client, pid) in services.items():
                    measured = load(str(client.base_url), pid, data, clients, requests=2)
                    rounds[name, clients].append(measured.report())
                found = pipeline(library, recording, clients)
                rounds["pipeline", clients].append(found.report())
    return {
        f"{name}, {clients} clients": {
            key: statistics.median(part[key] for part in reports) for key in reports[0]
        }
        for (name, clients), reports in rounds.items()
    }


def resident(pid: int) -> float:
    """Megabytes of memory of a process."""
    pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def parallel(model: Path, recording: Path) -> dict[str, object]:
    """Send 50 requests at once."""
    data = recording.read_bytes()
    with service(model) as (client, pid, _):
        wait(client, "/ready")
        client.post(PATH, files={"file": data})
        before = resident(pid)

        def send(number: int) -> int:
            url = f"{client.base_url}{PATH}"
            return httpx.post(url, files={"file": data}, timeout=600, trust_env=False).status_code

        with ThreadPoolExecutor(50) as pool:
            counts = Counter(pool.map(send, range(50)))
        return {"answers": dict(counts), "grown_mb": resident(pid) - before}


def memory(model: Path, recording: Path) -> dict[str, float]:
    """Measure what unloading gives back, after the library itself is in memory."""
    data = recording.read_bytes()
    with service(model, WHISPER__TTL="-1") as (client, pid, _):
        wait(client, "/ready")
        name = client.get("/api/ps").json()["models"][0]
        client.post(PATH, files={"file": data})
        sizes = {"loaded": resident(pid)}
        client.delete(f"/api/ps/{name}").raise_for_status()
        sizes["unloaded"] = resident(pid)
        client.post(f"/api/ps/{name}").raise_for_status()
        client.delete(f"/api/ps/{name}").raise_for_status()
        return sizes | {"unloaded_again": resident(pid)}


def main() -> None:
    """Measure everything and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    arguments = parser.parse_args()
    model: Path = arguments.model.resolve()
    first, times = arguments.recordings[0], arguments.times
    measures: dict[str, Callable[[], object]] = {
        "start": lambda: start(model, times),
        "overhead": lambda: {
            path.name: overhead(model, path, times) for path in arguments.recordings
        },
        "together": lambda: together(model, first, times),
        "parallel": lambda: parallel(model, first),
        "memory": lambda: memory(model, first),
    }
    found = {name: measures[name]() for name in arguments.only}
    rounded = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 3))
    print(json.dumps(rounded, indent=2))


if __name__ == "__main__":
    main()
