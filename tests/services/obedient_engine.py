"""An engine that does in its process what it is told by the names and prompts that reach it."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from speech_service.contract.engine import Borrow, Item
from speech_service.contract.errors import ModelMissing, ModelUnavailable
from speech_service.contract.settings import Settings
from speech_service.contract.transcript import Options, Segment, Summary

from .harness import FakeEngine

BURDEN = ":libraries"


class LibraryError(Exception):
    """What no other process should have to import."""


class ObedientEngine(FakeEngine):
    """See `harness.FakeEngine`; the first word of a prompt is what to do, the rest is for it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.model = ""

    def prepare(self, borrow: Borrow) -> None:
        self.borrow = borrow

    def load(self, model: str) -> Any:
        match model:
            case "away":
                raise ModelUnavailable("the hub is away", "hub_unreachable")
            case "defect":
                raise LibraryError("no such layer")
            case "deadly":
                os.kill(os.getpid(), signal.SIGKILL)
        loaded = ObedientEngine(Settings())
        loaded.model = model
        loaded.borrow = self.borrow
        return loaded

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Item, None, None]:
        order, _, rest = (options.prompt or "say").partition(" ")
        match order:
            case "say":
                heard = [int(block[0]) for block in audio]
                yield _said(f"{self.model} {heard} {os.getpid()}")
            case "borrow":
                with self.borrow(rest) as other:
                    yield _said(f"{self.model} borrows {other.model} {os.getpid()}")
            case "where":
                yield _said(tempfile.gettempdir())
            case "fail":
                raise LibraryError(rest)
            case "miss":
                next(audio)
                raise ModelMissing(rest)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "count":
                yield from _counted(Path(rest))
        yield Summary("en", 1.0, 1.0, 1.0)


def _said(text: str) -> Segment:
    return Segment(0, 0, 0.0, 1.0, text)


def _counted(end: Path) -> Iterator[Item]:
    """Go on for ever; in the end take a while, and leave a file."""
    try:
        while True:
            yield _said("one more")
    finally:
        time.sleep(0.3)
        end.touch()
