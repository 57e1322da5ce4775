"""Speech made up for live sessions, and what comes back over their sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from .harness import FakeEngine, segment

RATE = 16_000


def sound(*lengths: float) -> NDArray[np.int16]:
    """Speech and silence in turns, beginning with speech; lengths in seconds."""
    rng = np.random.default_rng(0)
    parts = [
        rng.integers(-5000, 5000, size) if number % 2 == 0 else np.zeros(size)
        for number, size in enumerate(int(length * RATE) for length in lengths)
    ]
    return np.concatenate(parts).astype(np.int16)


def url_of(http: httpx.Client, path: str) -> str:
    return str(http.base_url).replace("http", "ws") + path


def received(socket: ClientConnection) -> Iterator[Any]:
    """Every message until the server closes."""
    try:
        while True:
            text = socket.recv(timeout=20)
            yield json.loads(text)
    except ConnectionClosed:
        return


class Recorder(FakeEngine):
    """Says one word per recording, so that utterances can be told apart."""

    def transcribe(self, audio: Any, options: Any) -> Any:
        number = len(self.asked)
        self.says = (segment(f"utterance{number}", 0.3),)
        yield from super().transcribe(audio, options)
