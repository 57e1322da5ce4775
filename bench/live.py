"""How long after a speaker falls silent is the finished text there, per live protocol?

    python -m bench.live MODEL RECORDING

RECORDING is a spoken WAV file, 16 kHz mono. It is played in real time, followed by silence; the
clock starts when its last loud sample has been sent and stops when the last completed segment
arrives. Half a second of it is the pause that ends an utterance.

Needs `pip install services/common services/faster-whisper httpx websockets`.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bench.engine import service, wait

RATE = 16_000
BLOCK_SECONDS = 0.05
SILENCE_SECONDS = 4.0

Samples = NDArray[np.int16]


def spoken(path: Path) -> Samples:
    """Return the samples of a WAV file up to its last loud one."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return samples[: int(np.flatnonzero(np.abs(samples) > 300)[-1]) + 1]


def play(
    socket: ClientConnection,
    samples: Samples,
    encode: Callable[[Samples], bytes | str],
    fell_silent: list[float],
) -> None:
    """Send speech and then silence in real time."""
    step = int(BLOCK_SECONDS * RATE)
    quiet = np.zeros(int(SILENCE_SECONDS * RATE), np.int16)
    begun = time.perf_counter()
    for number, start in enumerate(range(0, len(samples) + len(quiet), step)):
        part = np.concatenate((samples, quiet))[start : start + step]
        time.sleep(max(0.0, begun + number * BLOCK_SECONDS - time.perf_counter()))
        try:
            socket.send(encode(part))
        except ConnectionClosed:
            return
        if start <= len(samples) < start + step:
            fell_silent.append(time.perf_counter())


def arrivals(
    socket: ClientConnection, finished: Callable[[dict[str, object]], bool], until: float
) -> Iterator[float]:
    """Yield when messages with finished text arrive."""
    while time.perf_counter() < until:
        try:
            message = json.loads(socket.recv(timeout=0.1))
        except TimeoutError:
            continue
        except ConnectionClosed:
            return
        if finished(message):
            yield time.perf_counter()


def as_float(samples: Samples) -> bytes:
    return (samples.astype(np.float32) / 32768).tobytes()


def as_append(samples: Samples) -> str:
    index = np.arange(len(samples) * 3 // 2) * 2 // 3
    audio = base64.b64encode(samples[index].tobytes()).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


def completed(message: dict[str, object]) -> bool:
    segments = message.get("segments")
    return isinstance(segments, list) and bool(segments) and bool(segments[-1]["completed"])


GREETING = json.dumps({"uid": "bench", "language": "en", "task": "transcribe"})
SESSION = json.dumps(
    {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {"input": {"transcription": {"language": "en"}}},
        },
    }
)
PROTOCOLS: dict[str, tuple[str, str | None, Callable[[Samples], bytes | str],
                           Callable[[dict[str, object]], bool]]] = {
    "faster-whisper-server": (
        "/v1/audio/transcriptions?language=en", None, lambda part: part.tobytes(),
        lambda message: "text" in message,
    ),
    "WhisperLive": ("/", GREETING, as_float, completed),
    "OpenAI Realtime": (
        "/v1/realtime?intent=transcription", SESSION, as_append,
        lambda message: str(message["type"]).endswith("transcription.completed"),
    ),
}  # fmt: skip


def latency(base: str, protocol: str, samples: Samples) -> float:
    """Return the seconds from silence to the last finished text."""
    path, greeting, encode, finished = PROTOCOLS[protocol]
    fell_silent: list[float] = []
    length = len(samples) / RATE + SILENCE_SECONDS
    with connect(base.replace("http", "ws") + path, proxy=None) as socket:
        if greeting:
            socket.send(greeting)
        player = threading.Thread(target=play, args=(socket, samples, encode, fell_silent))
        player.start()
        times = list(arrivals(socket, finished, time.perf_counter() + length))
        player.join()
    return next(moment for moment in times if moment > fell_silent[0]) - fell_silent[0]


def main() -> None:
    """Measure each protocol and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    samples = spoken(arguments.recording)
    found = {}
    with service(arguments.model.resolve(), WHISPER__TTL="-1") as (client, _, _started):
        wait(client, "/ready")
        for protocol in PROTOCOLS:
            base = str(client.base_url)
            times = [latency(base, protocol, samples) for _ in range(arguments.times)]
            found[protocol] = {
                "p50": round(statistics.median(times), 3),
                "max": round(max(times), 3),
            }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
