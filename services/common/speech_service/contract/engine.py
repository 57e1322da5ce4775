"""What an engine must give to the shared service.

All methods but `fetch` block and are called from worker threads, never from the event loop. Heavy
imports belong inside them: the port is bound before they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .transcript import Options, Progress, Segment, Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Samples per second of all audio handed to an engine; one channel."""

WORKER_THREADS = "speech"
"""What the names of all threads begin with that do the work, those that an engine starts included.

A process that ends waits for none of them: a decoder cannot be interrupted.
"""

Item: TypeAlias = Segment | Progress | Summary
"""What a recognizer yields."""

Reached: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of a download are here, and of how many in all (0 while unknown)."""

Borrow: TypeAlias = Callable[[str], AbstractContextManager[Any]]
"""Claims the model of a name for as long as the context lasts, loading it if need be."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine can do beside turning a recording into text.

    `live`: it can tell where somebody speaks while audio comes in; `speakers`: it can tell who.
    """

    live: bool
    speakers: bool


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
    ) -> Generator[Item, None, None]:
        """Yield segments as they are final, progress in between, one `Summary` as the last item.

        Args:
            audio: consecutive blocks of mono samples at `SAMPLE_RATE`, read as they are needed.
            options: what was asked.
        Raises:
            ModelMissing: before the first item, where a further model has to be fetched; the caller
                sees to that, and calls again with the same samples.
        Cancellation: the caller closes the generator between two items.
        """


class Engine(Protocol):
    """A speech program: finds, fetches and loads models."""

    name: str
    """Service name, as `/health` reports it."""

    default_model: str
    """Public name of the model that is used where none is asked for."""

    abilities: Abilities

    def prepare(self, borrow: Borrow) -> None:
        """Import what every request needs; called once, first, in a thread.

        Args:
            borrow: for recognizers that work with more than one model; only from their threads.
        """

    def complete(self) -> None:
        """Import what only some requests need; called once, after the models were preloaded."""

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
        """Say whether a model can be loaded without network.

        Args:
            model: canonical name, or what `ModelMissing` names.
        """

    async def fetch(self, model: str, progress: Reached) -> None:
        """Download a model so that it can be loaded; do nothing if it is here already.

        Args:
            model: canonical name, or what `ModelMissing` names.
            progress: told how far the download is.
        Raises:
            ModelNotAllowed: it is none of those that clients may have fetched.
            ModelNotFound: the hub has no such model.
            ModelUnavailable: the hub cannot be reached, or refuses.
        Cancellation: at any moment; returns once nothing is downloaded any more.
        """

    def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
        """Return where somebody speaks, as first and last sample, in order; no model is loaded.

        A stretch that reaches the end of `samples` may go on beyond it.
        """

    def load(self, model: str) -> Any:
        """Load a model into memory.

        Args:
            model: canonical name of one that is here; then a `Recognizer` is returned. A recognizer
                may borrow models of other kinds under names that `resolve` never returns; what is
                no model at all has one that begins with a colon, and is listed nowhere. What is
                returned may have an attribute `worn_out`: true once it should rather be loaded
                anew than used again.
        Raises:
            ModelNotFound, ModelUnavailable: it is damaged, or not here.
        """
