"""What an engine must give to the shared service.

All methods block and are called from worker threads, never from the event loop. Heavy imports
belong inside them: the port is bound before they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .transcript import Options, Segment, Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Samples per second of all audio handed to an engine; one channel."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model on this machine: its public name and when it came here (Unix seconds)."""

    id: str
    created: int
    owned_by: str


class Recognizer(Protocol):
    """A loaded model."""

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Segment | Summary, None, None]:
        """Yield segments as they are decoded, and one `Summary` as the last item.

        Args:
            audio: consecutive blocks of mono samples at `SAMPLE_RATE`, read as they are needed.
            options: what was asked.
        Cancellation: the caller closes the generator between two items.
        """


class Engine(Protocol):
    """A speech program: finds, fetches and loads models."""

    name: str
    """Service name, as `/health` reports it."""

    default_model: str
    """Public name of the model that is used where none is asked for."""

    def prepare(self) -> None:
        """Import what is heavy; called once, first, in a thread."""

    def resolve(self, model: str | None) -> str:
        """Return the canonical name of a model; no network.

        Args:
            model: what the client sent; None means the default model.
        Raises:
            ModelNotFound: no such name.
        """

    def local_models(self) -> list[ModelCard]:
        """List the models that can be loaded without network."""

    def is_local(self, model: str) -> bool:
        """Say whether the model of this canonical name can be loaded without network."""

    def fetch(self, model: str, progress: Callable[[int, int], None]) -> None:
        """Download a model so that it can be loaded; do nothing if it is here already.

        Args:
            model: canonical name.
            progress: called with bytes done and bytes in all (0 while unknown).
        Raises:
            ModelNotFound: the hub has no such model.
            ModelUnavailable: the hub cannot be reached, or refuses.
        """

    def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
        """Return where somebody speaks, as first and last sample, in order; no model is loaded.

        A stretch that reaches the end of `samples` may go on beyond it.
        """

    def load(self, model: str) -> Recognizer:
        """Load a model into memory, fetching it first where that is allowed.

        Raises:
            ModelNotFound, ModelUnavailable: as `fetch`; also for a damaged model.
        """
