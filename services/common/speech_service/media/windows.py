"""Long recordings in pieces: what keeps memory bounded, cut where it is quiet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..contract.engine import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW_SECONDS = 300.0
"""An hour in one piece takes over a gigabyte while it becomes a spectrogram; five minutes take 250
MB, as often as jobs run at the same time."""
SEARCH_SECONDS = 20.0
"""How far back from the end of a window the quietest moment is looked for."""

_FRAME = SAMPLE_RATE // 50
_QUIET_FRAMES = 15


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a recording: float samples in -1..1 and the second it starts at."""

    start: float
    samples: NDArray[np.float32]


def windows(
    blocks: Iterator[NDArray[np.int16]], seconds: float = WINDOW_SECONDS
) -> Iterator[Window]:
    """Gather blocks into windows of at most about `seconds` and `SEARCH_SECONDS` more.

    A recording that fits into one window is not cut at all.

    Args:
        blocks: consecutive mono samples at `SAMPLE_RATE`.
        seconds: length after which a window is cut; more than `SEARCH_SECONDS`.
    """
    import numpy as np

    held: list[NDArray[np.int16]] = []
    size = position = 0
    limit = int((seconds + SEARCH_SECONDS) * SAMPLE_RATE)
    for block in blocks:
        held.append(block)
        size += len(block)
        while size > limit:
            samples = np.concatenate(held)
            cut = _quietest(samples, int(seconds * SAMPLE_RATE))
            yield Window(position / SAMPLE_RATE, _as_float(samples[:cut]))
            held, size, position = [samples[cut:]], size - cut, position + cut
    if size:
        yield Window(position / SAMPLE_RATE, _as_float(np.concatenate(held)))


def _quietest(samples: NDArray[np.int16], end: int) -> int:
    """Return the middle of the quietest 300 ms in the last `SEARCH_SECONDS` before `end`."""
    import numpy as np

    begin = end - int(SEARCH_SECONDS * SAMPLE_RATE)
    frames = samples[begin : begin + (end - begin) // _FRAME * _FRAME].reshape(-1, _FRAME)
    energy = np.square(frames.astype(np.float32)).mean(axis=1)
    smooth = np.convolve(energy, np.ones(_QUIET_FRAMES), mode="valid")
    return begin + (int(smooth.argmin()) + _QUIET_FRAMES // 2) * _FRAME


def _as_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    import numpy as np

    return samples.astype(np.float32) / 32768.0
