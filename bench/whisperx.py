"""What the WhisperX service takes from the start of its container to who said what.

    python -m bench.whisperx MODELS RECORDING [--rounds N] [--set NAME=VALUE]...

MODELS is a folder laid out as the image's `/models`, RECORDING any audio file. Each round starts a
container that exists already, as the proxy does, and sends one request after the other. Printed are
medians, in seconds:

- since the start: `/health`, the answer to a plain request that was sent at once, `/ready`;
- cold: a request with words and speakers, sent as soon as `/health` answers, and since the start;
- warm: the same request again, and the share of each stage, as `/metrics` tells it;
- memory of the processes: at `/health`, when ready, after words and speakers, and after all models
  were unloaded;
- woken: a plain request and one with words and speakers, after that.

Needs Docker, the image `whisperx-engine:latest`, `pip install httpx prometheus-client`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

IMAGE = "whisperx-engine:latest"
WORDS_AND_SPEAKERS = {"diarize": "true"}
MEGABYTE = 1_000_000


def docker(*arguments: str) -> str:
    """Run a command of Docker's; its standard output."""
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


class Container:
    """The service in a container that is started and stopped again and again."""

    def __init__(self, models: Path, settings: list[str]) -> None:
        self.name = f"bench-whisperx-{uuid.uuid4().hex[:8]}"
        docker(
            *("create", "--name", self.name, "--publish", "127.0.0.1::8000"),
            *("--volume", f"{models.resolve()}:/models:ro", "--env", "HF_HUB_OFFLINE=1"),
            *(f"--env={setting}" for setting in settings),
            IMAGE,
        )

    @contextmanager
    def started(self) -> Iterator[tuple[httpx.Client, float]]:
        """Start it; yield a client and when that was."""
        since = time.perf_counter()
        docker("start", self.name)
        address = docker("port", self.name, "8000/tcp").splitlines()[0]
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=600, trust_env=False) as http:
                yield http, since
        finally:
            docker("stop", self.name)

    def resident_megabytes(self) -> float:
        """Memory of its processes."""
        _, *lines = docker("top", self.name, "-eo", "pid,rss").splitlines()
        return sum(int(line.split()[1]) for line in lines) * 1024 / MEGABYTE


def wait(http: httpx.Client, path: str) -> None:
    """Wait for a 200."""
    while True:
        try:
            if http.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.005)


def asked(http: httpx.Client, path: str, recording: bytes, fields: dict[str, str]) -> float:
    """Send a recording; seconds until its transcript is there."""
    since = time.perf_counter()
    http.post(path, files={"file": recording}, data=fields).raise_for_status()
    return time.perf_counter() - since


def stages(http: httpx.Client) -> dict[str, float]:
    """Seconds spent in each stage so far."""
    return {
        sample.labels["stage"]: sample.value
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
        if sample.name == "speech_stage_seconds_sum"
    }


def measure(container: Container, recording: bytes) -> Iterator[tuple[str, float]]:
    """Yield the figures of one round."""
    with container.started() as (http, since):
        wait(http, "/health")
        yield "health", time.perf_counter() - since
        yield "megabytes_at_health", container.resident_megabytes()
        asked(http, "/v1/audio/transcriptions", recording, {})
        yield "plain_answer", time.perf_counter() - since
        wait(http, "/ready")
        yield "ready", time.perf_counter() - since
        yield "megabytes_when_ready", container.resident_megabytes()
    with container.started() as (http, since):
        wait(http, "/health")
        yield "cold_request", asked(http, "/transcribe", recording, WORDS_AND_SPEAKERS)
        yield "cold_since_start", time.perf_counter() - since
        before = stages(http)
        yield "warm_request", asked(http, "/transcribe", recording, WORDS_AND_SPEAKERS)
        for stage, seconds in stages(http).items():
            yield f"warm_{stage}", seconds - before[stage]
        yield "megabytes_after_speakers", container.resident_megabytes()
        while http.get("/api/ps").json()["models"]:
            time.sleep(0.2)
        time.sleep(3)  # the libraries leave a moment after the models
        yield "megabytes_unloaded", container.resident_megabytes()
        yield "woken_plain", asked(http, "/v1/audio/transcriptions", recording, {})
        yield "woken_request", asked(http, "/transcribe", recording, WORDS_AND_SPEAKERS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    recording = arguments.recording.read_bytes()
    container = Container(arguments.models, ["WHISPERX__TTL=5", *arguments.set])
    figures: defaultdict[str, list[float]] = defaultdict(list)
    try:
        for _ in range(arguments.rounds):
            for name, value in measure(container, recording):
                figures[name].append(value)
    finally:
        docker("rm", "--force", "--volumes", container.name)
    medians = {name: round(statistics.median(values), 3) for name, values in figures.items()}
    print(json.dumps({"rounds": arguments.rounds, "medians": medians}, indent=2))


if __name__ == "__main__":
    main()
