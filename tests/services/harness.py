"""A service on a real socket, with an engine whose words and pace the test decides."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import APIRouter
from numpy.typing import NDArray
from speech_service.app import create_app
from speech_service.contract.engine import SAMPLE_RATE, Abilities, Borrow, Item, ModelCard, Reached
from speech_service.contract.errors import ModelNotFound
from speech_service.contract.settings import Settings
from speech_service.contract.transcript import Options, Progress, Segment, Summary, Word
from speech_service.routes import (
    faster_whisper_server,
    plain,
    realtime,
    whisper_asr,
    whisper_live,
)


def words(*texts: str, start: float = 0.0, each: float = 0.5) -> tuple[Word, ...]:
    """Words of equal length that follow each other without a pause."""
    return tuple(
        Word(start + number * each, start + (number + 1) * each, f" {text}", 0.9)
        for number, text in enumerate(texts)
    )


def segment(text: str, start: float = 0.0, number: int = 0) -> Segment:
    """A segment as an engine would deliver it, with the times of its words."""
    spoken = words(*text.split(), start=start)
    tokens = tuple(range(len(spoken)))
    return Segment(number, 0, start, spoken[-1].end, f" {text}", tokens, words=spoken)


@dataclass
class FakeEngine:
    """Says what it is told to; `pace` may block each segment until the test allows it."""

    says: tuple[Segment | Progress, ...] = (segment("one two three"), segment("four five", 2.0, 1))
    name: str = "fake"
    default_model: str = "tiny"
    models: tuple[str, ...] = ("tiny", "org/small")
    abilities: Abilities = Abilities(live=True, speakers=False)
    pace: Callable[[], object] = lambda: None
    loading: Callable[[str], object] = lambda name: None
    loads: list[str] = field(default_factory=list)
    asked: list[Options] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    decoded: int = 0

    def prepare(self, borrow: Borrow) -> None:
        """See `Engine.prepare`."""

    def complete(self) -> None:
        """See `Engine.complete`."""

    def resolve(self, model: str | None) -> str:
        """See `Engine.resolve`."""
        name = self.default_model if model in (None, "whisper-1") else str(model)
        if "/" not in name and name not in self.models:
            raise ModelNotFound(f"there is no model {name!r}", "model")
        return name

    def local_models(self) -> list[ModelCard]:
        """See `Engine.local_models`."""
        return [ModelCard(name, 1_700_000_000, "test") for name in self.models]

    def is_local(self, model: str) -> bool:
        """See `Engine.is_local`."""
        return model in self.models

    async def fetch(self, model: str, progress: Reached) -> None:
        """See `Engine.fetch`."""
        if not self.is_local(model):
            raise ModelNotFound(f"the hub has no model {model!r}", "model")

    def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
        """See `Engine.speech`: whatever is loud, in steps of 20 ms."""
        step = SAMPLE_RATE // 50
        loud = [
            number
            for number in range(0, len(samples), step)
            if int(np.abs(samples[number : number + step]).max()) > 500
        ]
        found: list[tuple[int, int]] = []
        for start in loud:
            end = min(start + step, len(samples))
            if found and start - found[-1][1] < 5 * step:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found

    def load(self, model: str) -> FakeEngine:
        """See `Engine.load`."""
        self.loading(model)
        self.loads.append(model)
        return self

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Item, None, None]:
        """See `Recognizer.transcribe`."""
        self.asked.append(options)
        seconds = sum(len(block) for block in audio) / SAMPLE_RATE
        self.heard.append(seconds)
        for found in () if options.language_only else self.says:
            self.pace()
            self.decoded += 1
            yield found
        yield Summary(options.language or "fr", 0.9, seconds, seconds)


PLAIN_FAMILIES = tuple(
    family.router for family in (plain, whisper_asr, faster_whisper_server, whisper_live, realtime)
)
"""The routes of an engine that is not alone with OpenAI's."""


@contextmanager
def serve(
    engine: Any = None,
    families: Sequence[APIRouter] = PLAIN_FAMILIES,
    server_options: Mapping[str, Any] = {},
    **settings: Any,
) -> Iterator[httpx.Client]:
    """Run a service on a free port of the loopback; yield a client of it once it is ready."""
    app = create_app(engine or FakeEngine(), Settings(**settings), "test", families)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_config=None,
        timeout_graceful_shutdown=5,
        root_path=settings.get("root_path", ""),
        **server_options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    host, port = listener.getsockname()
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60, trust_env=False) as client:
            wait_until(lambda: client.get("/health").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition that another thread brings about."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        waiting.wait(0.01)
    raise AssertionError(f"not within {seconds} seconds: {condition}")
