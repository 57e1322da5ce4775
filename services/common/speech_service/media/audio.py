"""Uploaded bytes to samples, within limits: PyAV (FFmpeg's libraries) fed from an open file.

FFmpeg opens playlists, and playlists open other files and addresses. So it is told which container
formats may be tried, it may follow no protocol but the file it was given, and it never learns the
name a client gave. Length is limited twice: `probe` walks the packets before any work is queued,
and `decode` counts samples before they are resampled, because what a header or a packet declares
may be a lie; `limits` says what decoding may take. Times are those of a player: where a track
starts late or has a hole there is silence (see `timeline`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Protocol, cast

from ..contract.engine import SAMPLE_RATE
from ..contract.errors import (
    IncompleteFile,
    InvalidField,
    NoAudio,
    NotAudio,
    SpeechError,
    TooLong,
)
from .containers import HEAD_BYTES, container_of
from .limits import (
    DEMUXER,
    block_samples,
    check_index,
    check_sound,
    inconvertible,
    limit_allocations,
)
from .timeline import Timeline

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.audio.frame import AudioFrame
    from numpy.typing import NDArray

    Packet = av.packet.Packet[av.AudioStream]

# Names of FFmpeg demuxers. None of them opens a second file.
_FORMATS = (
    "aac", "ac3", "aiff", "amr", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "matroska",
    "mov", "mp3", "mpeg", "mpegts", "ogg", "w64", "wav",
)  # fmt: skip
_OPTIONS = DEMUXER | {
    "protocol_whitelist": "file,pipe",
    "format_whitelist": ",".join(_FORMATS),
}

_TIMED = {"asf", "flv", "matroska", "mov", "mpeg", "mpegts", "ogg"}
"""Demuxers whose time stamps are written in the file; those of others are counted from bytes."""

_PATIENCE_SECONDS = 3.0
"""How long FFmpeg may look for the next packet of audio."""

_BLOCK = 500_000
"""Samples that are read or made up at once."""


class Recording(Protocol):
    """Something that can be heard once; whoever holds it closes it."""

    def probe(self, max_seconds: float) -> float:
        """Check, before any work is queued, that there is audio and not too much of it.

        Args:
            max_seconds: limit on the time the audio plays.
        Returns:
            Seconds, as far as they are declared.
        Raises:
            NotAudio: the format is none of those accepted.
            IncompleteFile: it is one of those, and ends before its audio.
            NoAudio: there is no audio stream, or its beginning cannot be decoded.
            TooLong: it plays longer than `max_seconds`.
        """

    def decode(self, max_seconds: float) -> Iterator[NDArray[np.int16]]:
        """Yield blocks of mono samples at `SAMPLE_RATE`; errors as `probe`."""

    def close(self) -> None:
        """Give back what it holds."""


class MediaFile:
    """An audio or video file.

    Args:
        file: seekable; closed by `close`.
        track: which of its audio tracks, from 0; None takes the default one, else the first.
    """

    def __init__(self, file: IO[bytes], track: int | None = None) -> None:
        self._file = file
        self._track = track

    def probe(self, max_seconds: float) -> float:
        """See `Recording.probe`.

        Raises:
            InvalidField: there is no such track.
        """
        reader = _Reader(self._file)
        with _open(reader) as container:
            stream = _audio_stream(container, self._track)
            if (container.duration or 0) > max_seconds * 1_000_000:
                raise _too_long(max_seconds)
            seconds, heard = 0.0, False
            for packet in _packets(container, stream, reader):
                heard = heard or any(frame.samples for frame in _frames(packet))
                if packet.duration and packet.time_base:
                    seconds += float(packet.duration * packet.time_base)
                if seconds > max_seconds:
                    raise _too_long(max_seconds)
            if not heard:
                raise _nothing_decodes()
        return seconds

    def decode(self, max_seconds: float) -> Iterator[NDArray[np.int16]]:
        """See `Recording.decode`; damaged packets are left out."""
        samples = 0
        reader = _Reader(self._file)
        with _open(reader) as container:
            stream = _audio_stream(container, self._track)
            packets = _packets(container, stream, reader)
            frames = (frame for packet in packets for frame in _frames(packet))
            heard = _bounded(frames, max_seconds)
            for block in _resampled(heard, _timeline(container, stream)):
                samples += len(block)
                if samples > max_seconds * SAMPLE_RATE:
                    raise _too_long(max_seconds)
                yield block
        if not samples:
            raise _nothing_decodes()

    def close(self) -> None:
        """See `Recording.close`."""
        self._file.close()


class RawFile:
    """Bare samples without a header: signed 16 bit, little endian, mono, 16 kHz.

    Args:
        file: read from its start; closed by `close`.
        size: bytes in it.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def probe(self, max_seconds: float) -> float:
        """See `Recording.probe`; any bytes are samples."""
        seconds = self._size / (2 * SAMPLE_RATE)
        if seconds > max_seconds:
            raise _too_long(max_seconds)
        if self._size < 2:
            raise _nothing_decodes()
        return seconds

    def decode(self, max_seconds: float) -> Iterator[NDArray[np.int16]]:
        """See `Recording.decode`."""
        import numpy as np

        self._file.seek(0)
        while data := self._file.read(2 * _BLOCK):
            yield np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16, copy=False)

    def close(self) -> None:
        """See `Recording.close`."""
        self._file.close()


class Samples:
    """Samples in memory, as live sessions gather them.

    Args:
        samples: mono at `SAMPLE_RATE`; not empty.
    """

    def __init__(self, samples: NDArray[np.int16]) -> None:
        self._samples = samples

    def probe(self, max_seconds: float) -> float:
        """See `Recording.probe`; the session that gathered them limits their length."""
        return len(self._samples) / SAMPLE_RATE

    def decode(self, max_seconds: float) -> Iterator[NDArray[np.int16]]:
        """See `Recording.decode`."""
        yield self._samples

    def close(self) -> None:
        """See `Recording.close`."""


class _Reader:
    """A file as FFmpeg reads it: one that seems to end where nothing worth waiting for comes.

    Some demuxers take rubbish behind the audio for millions of empty chunks.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._file.seek(0)
        self.be_patient()

    def be_patient(self) -> None:
        """Begin to wait for the next packet."""
        self._deadline = time.monotonic() + _PATIENCE_SECONDS

    def read(self, size: int) -> bytes:
        """See `io.RawIOBase.read`."""
        return self._file.read(size) if time.monotonic() < self._deadline else b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.IOBase.seek`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See `io.IOBase.tell`."""
        return self._file.tell()


def _open(file: _Reader) -> av.container.InputContainer:
    import av

    limit_allocations()
    check_index(file)
    file.seek(0)
    file.be_patient()
    try:
        container = av.open(file, mode="r", options=_OPTIONS, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        raise _unreadable(file) from error
    streams = container.streams
    if not (streams.audio or streams.video or streams.subtitles):
        container.close()
        raise _unreadable(file)
    return container


def _unreadable(file: _Reader) -> SpeechError:
    """Return why a file cannot be opened, or has nothing in it."""
    file.be_patient()
    file.seek(0)
    if container := container_of(file.read(HEAD_BYTES)):
        return IncompleteFile(f"the {container.name} file is incomplete: {container.cure}", "file")
    return NotAudio(
        "the file is no audio or video format that is accepted; send wav, mp3, flac, ogg, "
        "opus, m4a, mp4, webm, mkv, aac, aiff or wma",
        "file",
    )


def _audio_stream(container: av.container.InputContainer, track: int | None) -> av.AudioStream:
    import av

    tracks = container.streams.audio
    if not tracks:
        raise NoAudio("the file has no audio stream", "file")
    if track is None:
        default = av.stream.Disposition.default
        stream = next((each for each in tracks if each.disposition & default), tracks[0])
    elif track < len(tracks):
        stream = tracks[track]
    else:
        raise InvalidField(
            f"track: the file has {len(tracks)} audio tracks, counted from 0", "track"
        )
    context = stream.codec_context
    if context is None:
        raise NoAudio("the codec of the audio stream is unknown", "file")
    if context.sample_rate:
        check_sound(context.sample_rate, context.layout.nb_channels)
    return stream


def _timeline(container: av.container.InputContainer, stream: av.AudioStream) -> Timeline | None:
    """Return where the frames of a stream belong; None where nothing in the file says so."""
    import av

    if _TIMED.isdisjoint(container.format.name.split(",")):
        return None
    start = (container.start_time or 0) / av.time_base
    length = None if container.duration is None else container.duration / av.time_base
    cover = av.stream.Disposition.attached_pic
    ends = (
        _end(other, start, length or 0.0)
        for other in container.streams
        if other.type in ("video", "audio") and other != stream and not other.disposition & cover
    )
    return Timeline(start, length, max(ends, default=0.0))


def _end(stream: av.stream.Stream, start: float, length: float) -> float:
    """Return when another stream ends, as far as it says so itself, else with the whole."""
    if stream.duration is None or stream.time_base is None:
        return length
    return float((stream.duration + (stream.start_time or 0)) * stream.time_base) - start


def _packets(
    container: av.container.InputContainer, stream: av.AudioStream, reader: _Reader
) -> Iterator[Packet]:
    """Yield packets until the end or the first place that cannot be read past."""
    import av

    packets = container.demux(stream)
    try:
        while True:
            # Whoever takes the packets may have taken his time over the last one.
            reader.be_patient()
            packet = next(packets, None)
            if packet is None:
                return
            yield packet
    except av.error.FFmpegError:
        return


def _frames(packet: Packet) -> list[AudioFrame]:
    """Decode one packet; a damaged one gives nothing."""
    import av

    try:
        return list(packet.decode())
    except av.error.FFmpegError:
        return []


def _bounded(frames: Iterator[AudioFrame], max_seconds: float) -> Iterator[AudioFrame]:
    """Yield frames as long as they play for no longer than that, and can be resampled.

    What a stream declares need not be true of its frames, nor stay true.
    """
    seconds = 0.0
    for frame in frames:
        check_sound(frame.sample_rate, frame.layout.nb_channels)
        seconds += frame.samples / frame.sample_rate
        if seconds > max_seconds:
            raise _too_long(max_seconds)
        yield frame


def _resampled(
    frames: Iterator[AudioFrame], timeline: Timeline | None
) -> Iterator[NDArray[np.int16]]:
    """Convert frames to blocks of 16 kHz mono, with silence in the holes between them.

    A change of format in the middle is followed.
    """
    run, layout = _Run(), None
    for frame in frames:
        seconds = frame.samples / frame.sample_rate
        hole = timeline.silence_before(frame.time, seconds) if timeline else 0.0
        if hole or _layout(frame) != layout:
            yield from run.end()
            yield from _silence(hole)
            run, layout = _Run(), _layout(frame)
        yield from run.add(frame)
    yield from run.end()


def _layout(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


class _Run:
    """Frames of one format that follow each other without a hole."""

    def __init__(self) -> None:
        import av

        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        self._fifo = av.AudioFifo()

    def add(self, frame: AudioFrame) -> Iterator[NDArray[np.int16]]:
        """Yield what is due with one more frame."""
        import av

        # Where it belongs is settled, and the queue takes no holes.
        frame.pts = None
        try:
            self._fifo.write(frame)
        except av.error.FFmpegError as error:
            raise inconvertible() from error
        if self._fifo.samples >= block_samples(frame):
            yield from self._blocks(self._fifo.read())

    def end(self) -> Iterator[NDArray[np.int16]]:
        """Yield the rest."""
        if self._fifo.samples:
            yield from self._blocks(self._fifo.read())
            yield from self._blocks(None)

    def _blocks(self, frame: AudioFrame | None) -> Iterator[NDArray[np.int16]]:
        import av

        try:
            for resampled in self._resampler.resample(frame):
                yield cast("NDArray[np.int16]", resampled.to_ndarray()).reshape(-1)
        except av.error.FFmpegError as error:
            raise inconvertible() from error


def _silence(seconds: float) -> Iterator[NDArray[np.int16]]:
    import numpy as np

    samples = round(seconds * SAMPLE_RATE)
    for done in range(0, samples, _BLOCK):
        yield np.zeros(min(_BLOCK, samples - done), np.int16)


def _nothing_decodes() -> NoAudio:
    return NoAudio("nothing in it can be decoded as audio; is the file complete?", "file")


def _too_long(max_seconds: float) -> TooLong:
    return TooLong(
        f"the audio is longer than the {max_seconds:g} seconds that are accepted; send it in parts",
        "file",
    )
