"""Uploaded bytes to samples, within limits: PyAV (FFmpeg's libraries) fed from an open file.

FFmpeg opens playlists, and playlists open other files and addresses. So it is told which container
formats may be tried, it may follow no protocol but the file it was given, and it never learns the
name a client gave. Length is limited twice: `probe` walks the packets before any work is queued,
and `decode` counts samples, because what a header or a packet declares may be a lie.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, cast

from .engine import SAMPLE_RATE
from .errors import NoAudio, NotAudio, TooLong

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from numpy.typing import NDArray

    Packet = av.packet.Packet[av.AudioStream]

# Names of FFmpeg demuxers. None of them opens a second file.
_FORMATS = (
    "aac", "ac3", "aiff", "amr", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "matroska",
    "mov", "mp3", "mpeg", "mpegts", "ogg", "w64", "wav",
)  # fmt: skip
_OPTIONS = {"protocol_whitelist": "file,pipe", "format_whitelist": ",".join(_FORMATS)}

_BLOCK = 500_000
"""Samples resampled at once; frames are often tiny, and each call has its price."""


def probe(file: IO[bytes], max_seconds: float) -> float:
    """Check that a file holds audio that decodes and is not too long; rewind it.

    Args:
        file: seekable; read from its start.
        max_seconds: limit on the time the audio plays.
    Returns:
        Seconds, as the packets declare them.
    Raises:
        NotAudio: the format is none of those accepted.
        NoAudio: there is no audio stream, or its beginning cannot be decoded.
        TooLong: it plays longer than `max_seconds`.
    """
    with _open(file) as container:
        stream = _audio_stream(container)
        if (container.duration or 0) > max_seconds * 1_000_000:
            raise _too_long(max_seconds)
        seconds, heard = 0.0, False
        for packet in _packets(container, stream):
            heard = heard or any(frame.samples for frame in _frames(packet))
            if packet.duration and packet.time_base:
                seconds += float(packet.duration * packet.time_base)
            if seconds > max_seconds:
                raise _too_long(max_seconds)
        if not heard:
            raise NoAudio("nothing in the audio stream can be decoded; is the file complete?")
    return seconds


def decode(file: IO[bytes], max_seconds: float) -> Iterator[NDArray[np.int16]]:
    """Yield blocks of mono samples at `SAMPLE_RATE`; damaged packets are left out.

    Args:
        file: seekable; read from its start.
        max_seconds: decoding stops with `TooLong` beyond it.
    Raises:
        NotAudio, NoAudio, TooLong: as `probe`.
    """
    samples = 0
    with _open(file) as container:
        stream = _audio_stream(container)
        frames = (frame for packet in _packets(container, stream) for frame in _frames(packet))
        for block in _resampled(frames):
            samples += len(block)
            if samples > max_seconds * SAMPLE_RATE:
                raise _too_long(max_seconds)
            yield block
    if not samples:
        raise NoAudio("nothing in the audio stream can be decoded; is the file complete?")


def _open(file: IO[bytes]) -> av.container.InputContainer:
    import av

    file.seek(0)
    try:
        return av.open(file, mode="r", options=_OPTIONS, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        raise NotAudio(
            "the file is no audio or video format that is accepted; send wav, mp3, flac, ogg, "
            "opus, m4a, mp4, webm, mkv, aac, aiff or wma",
            "file",
        ) from error


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise NoAudio("the file has no audio stream", "file")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise NoAudio("the codec of the audio stream is unknown", "file")
    return stream


def _packets(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[Packet]:
    """Yield packets until the end or the first place that cannot be read past."""
    import av

    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return


def _frames(packet: Packet) -> list[AudioFrame]:
    """Decode one packet; a damaged one gives nothing."""
    import av

    try:
        return list(packet.decode())
    except av.error.FFmpegError:
        return []


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[NDArray[np.int16]]:
    """Convert frames to blocks of 16 kHz mono; a change of format in the middle is followed."""
    for _, run in itertools.groupby(frames, key=_layout):
        yield from _resampled_run(run)


def _layout(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _resampled_run(frames: Iterator[AudioFrame]) -> Iterator[NDArray[np.int16]]:
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    fifo = av.AudioFifo()
    for frame in frames:
        # Gaps and jumps of the time stamps are not ours to repair.
        frame.pts = None
        fifo.write(frame)
        if fifo.samples >= _BLOCK:
            yield from _blocks(resampler, fifo.read())
    if fifo.samples:
        yield from _blocks(resampler, fifo.read())
    yield from _blocks(resampler, None)


def _blocks(resampler: AudioResampler, frame: AudioFrame | None) -> Iterator[NDArray[np.int16]]:
    for resampled in resampler.resample(frame):
        yield cast("NDArray[np.int16]", resampled.to_ndarray()).reshape(-1)


def _too_long(max_seconds: float) -> TooLong:
    return TooLong(
        f"the audio is longer than the {max_seconds:g} seconds that are accepted; send it in parts",
        "file",
    )
