"""Bare samples that arrive piece by piece, in the encodings of the live protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ..contract.engine import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from av.audio.codeccontext import AudioCodecContext
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Encoding:
    """How samples are written, one channel: FFmpeg's codec, samples per second, bytes of each."""

    codec: str
    rate: int
    width: int


_PIECE_BYTES = 1 << 16
"""What is decoded at once: the resampler takes and keeps many times as much."""


class StreamDecoder:
    """Decodes a stream of samples to `SAMPLE_RATE`; it may be cut anywhere, also within a sample.

    Args:
        encoding: of what comes in.
    """

    def __init__(self, encoding: Encoding) -> None:
        import av

        self._encoding = encoding
        self._codec = cast("AudioCodecContext", av.CodecContext.create(encoding.codec, "r"))
        self._codec.sample_rate = encoding.rate
        self._codec.layout = "mono"
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        self._rest = b""

    def decode(self, data: bytes) -> NDArray[np.int16]:
        """Return what a piece of the stream becomes; a few samples stay behind until the next."""
        import av
        import numpy as np

        data = self._rest + data
        whole = len(data) // self._encoding.width * self._encoding.width
        data, self._rest = data[:whole], data[whole:]
        pieces = (data[start : start + _PIECE_BYTES] for start in range(0, whole, _PIECE_BYTES))
        blocks = [
            block.to_ndarray().reshape(-1).astype(np.int16)
            for piece in pieces
            for frame in self._codec.decode(av.Packet(piece))
            for block in self._resampler.resample(frame)
        ]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
