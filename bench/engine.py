"""What the faster-whisper service costs beside the library that does its work.

    python -m bench.engine MODEL RECORDING...

MODEL is a directory, RECORDING any audio file. Printed:

- start: seconds from the command to the first answer of `/health` and of `/ready`, and the
  processor seconds until `/health`;
- overhead: a request against the library's own `decode_audio` and `transcribe` with the same
  options, alternating, medians; goal: at most 5 % more. Processor seconds (`cpu_`) hold on a busy
  machine too;
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
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

PATH = "/v1/audio/transcriptions"
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
    arguments = parser.parse_args()
    model: Path = arguments.model.resolve()
    found = {
        "start": start(model, arguments.times),
        "overhead": {
            path.name: overhead(model, path, arguments.times) for path in arguments.recordings
        },
        "parallel": parallel(model, arguments.recordings[0]),
        "memory": memory(model, arguments.recordings[0]),
    }
    rounded = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 3))
    print(json.dumps(rounded, indent=2))


if __name__ == "__main__":
    main()
