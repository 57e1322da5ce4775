"""Whatever is uploaded: decoded as it should be, or refused with the reason."""

from __future__ import annotations

import io
import socket
import struct
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from speech_service.contract.errors import (
    IncompleteFile,
    InvalidField,
    NoAudio,
    NotAudio,
    SpeechError,
    TooLong,
)
from speech_service.media import audio
from speech_service.media.audio import MediaFile, RawFile, Recording, Samples

from ... import media


def decoded(data: bytes, max_seconds: float = 3600) -> float:
    recording = MediaFile(io.BytesIO(data))
    recording.probe(max_seconds)
    return sum(len(block) for block in recording.decode(max_seconds)) / 16_000


FORMATS = {
    "wav": ["-f", "wav"],
    "mp3": ["-f", "mp3"],
    "flac": ["-f", "flac"],
    "ogg": ["-f", "ogg", "-c:a", "libvorbis"],
    "opus": ["-f", "ogg", "-c:a", "libopus"],
    "webm": ["-f", "webm", "-c:a", "libopus"],
    "m4a": ["-f", "mp4"],
    "mkv": ["-f", "matroska", "-c:a", "aac"],
    "aac": ["-f", "adts"],
    "aiff": ["-f", "aiff"],
    "mpegts": ["-f", "mpegts"],
    "wma": ["-f", "asf", "-c:a", "wmav2"],
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_usual_formats_are_decoded_whole(name: str) -> None:
    source = ["-f", "lavfi", "-i", "sine=d=3", "-ac", "2", "-ar", "48000"]
    assert decoded(media.ffmpeg(*source, *FORMATS[name])) == pytest.approx(3.0, abs=0.1)


def test_samples_are_those_of_the_file() -> None:
    blocks = MediaFile(io.BytesIO(media.tone(2.0))).decode(10)
    samples = np.concatenate(list(blocks))
    assert samples.dtype == np.int16
    assert samples.tobytes() == media.tone(2.0)[44:]


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7\n" + b"1 0 obj << /Type /Catalog >> endobj\n" * 200,
        b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 200,
        b"just some text, nothing more\n" * 50,
        b"\x00",
        bytes(100_000),
        media.ffmpeg("-f", "lavfi", "-i", "testsrc=d=0.1", "-frames:v", "1", "-f", "image2pipe"),
    ],
    ids=["pdf", "elf", "text", "one byte", "zeros", "image"],
)
def test_what_is_no_audio_is_refused(data: bytes) -> None:
    with pytest.raises((NotAudio, NoAudio)):
        decoded(data)


def test_a_real_program_is_no_audio() -> None:
    with pytest.raises(NotAudio):
        decoded(Path("/bin/ls").read_bytes())


def test_video_without_sound_says_so() -> None:
    video = media.ffmpeg("-f", "lavfi", "-i", "testsrc=d=0.5", "-f", "matroska")
    with pytest.raises(NoAudio, match="no audio stream"):
        decoded(video)


def test_the_sound_of_a_video_is_heard() -> None:
    source = ["-f", "lavfi", "-i", "testsrc=d=2", "-f", "lavfi", "-i", "sine=d=2"]
    assert decoded(media.ffmpeg(*source, "-f", "matroska")) == pytest.approx(2.0, abs=0.1)


def late(seconds: float, *options: str) -> bytes:
    """A video of 13 seconds whose sound, a second of it, starts late."""
    picture = ["-f", "lavfi", "-i", "testsrc=d=13:s=32x32:r=5", "-map", "0:a", "-map", "1:v"]
    return media.ffmpeg("-itsoffset", f"{seconds}", *SINE, *picture, *options)


SINE = ("-f", "lavfi", "-i", "sine=d=1:r=48000")
CONTAINERS = {
    "mp4": ["-f", "mp4"],
    "fragmented mp4": ["-f", "mp4", "-bf", "0", "-movflags", "frag_keyframe+empty_moov"],
    "mov": ["-f", "mov", "-c:a", "pcm_s16le"],
    "mkv": ["-f", "matroska"],
    "webm": ["-f", "webm", "-c:v", "libvpx"],
    "webm of a recorder": ["-f", "webm", "-c:v", "libvpx", "-live", "1"],
    "mpegts": ["-f", "mpegts"],
    "mpeg": ["-f", "mpeg", "-c:v", "mpeg2video", "-r", "25"],
    "flv": ["-f", "flv", "-ar", "44100"],
    "asf": ["-f", "asf"],
}


def first_sound(data: bytes, **options: Any) -> float:
    """The second at which a recording is no longer silent."""
    samples = np.concatenate(list(MediaFile(io.BytesIO(data), **options).decode(3600)))
    return float(np.argmax(np.abs(samples) > 500)) / 16_000


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_track_that_starts_late_starts_with_silence(name: str) -> None:
    assert first_sound(late(4.9, *CONTAINERS[name])) == pytest.approx(4.9, abs=0.1)


@pytest.mark.parametrize("name", ["mp4", "mkv", "mpegts"])
def test_where_nothing_plays_before_it_the_sound_is_the_start(name: str) -> None:
    alone = media.ffmpeg("-itsoffset", "4.9", *SINE, *FORMATS.get(name, ["-f", name]))
    assert first_sound(alone) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("name", ["m4a", "mkv", "webm", "opus", "mpegts"])
def test_a_hole_in_the_time_stamps_is_silence(name: str) -> None:
    cut = ["-f", "lavfi", "-i", "sine=d=9", "-af", "aselect='not(between(t,2,6))'"]
    data = media.ffmpeg(*cut, *FORMATS[name])
    samples = np.concatenate(list(MediaFile(io.BytesIO(data)).decode(60)))
    assert len(samples) / 16_000 == pytest.approx(9.0, abs=0.1)
    quiet = np.flatnonzero(np.abs(samples) < 5)
    assert np.abs(samples[int(2.2 * 16_000) : int(5.8 * 16_000)]).max() < 5
    assert len(quiet) < 4.5 * 16_000


def shifted(data: bytes, name: str, seconds: float) -> bytes:
    """A file whose second half claims to come so much later."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(out, "w", format=name) as sink:
        stream = source.streams.audio[0]
        copy = sink.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or packet.time_base is None:
                continue
            if packet.pts * packet.time_base > source.start_time / av.time_base + 1:
                late = int(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + late, packet.pts + late
            packet.stream = copy
            sink.mux(packet)
    return out.getvalue()


@pytest.mark.parametrize("name", ["matroska", "mp4", "ogg", "mpegts"])
def test_a_time_stamp_that_lies_makes_no_hours_of_silence(name: str) -> None:
    codec = ["-c:a", "libopus"] if name in ("matroska", "ogg") else ["-c:a", "aac"]
    container = name if name == "mpegts" else "matroska"
    honest = media.ffmpeg("-f", "lavfi", "-i", "sine=d=2", *codec, "-f", container)
    assert decoded(shifted(honest, name, 3600.0), 36_000) < 3
    assert decoded(shifted(honest, name, 5.0)) == pytest.approx(7.0, abs=0.2)


def two_tracks(*options: str) -> bytes:
    """A second of silence, and a second of sound."""
    quiet = ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono"]
    tracks = ["-t", "1", "-map", "0", "-map", "1"]
    return media.ffmpeg(*quiet, *SINE, *tracks, "-c:a", "aac", *options)


SECOND_BY_DEFAULT = ["-disposition:a:0", "0", "-disposition:a:1", "default"]


@pytest.mark.parametrize("container", ["matroska", "mp4"])
@pytest.mark.parametrize(
    ("flags", "track", "sounds"),
    [
        ([], None, False),
        (SECOND_BY_DEFAULT, None, True),
        (SECOND_BY_DEFAULT, 0, False),
        ([], 1, True),
        (["-disposition:a:0", "0", "-disposition:a:1", "0"], None, False),
    ],
)
def test_the_default_track_is_heard_else_the_first_else_the_one_asked_for(
    container: str, flags: list[str], track: int | None, sounds: bool
) -> None:
    data = two_tracks(*flags, "-f", container)
    samples = np.concatenate(list(MediaFile(io.BytesIO(data), track).decode(60)))
    assert (np.abs(samples).max() > 500) == sounds


def test_a_track_that_is_not_there_is_refused_before_any_work() -> None:
    with pytest.raises(InvalidField, match="has 2 audio tracks, counted from 0"):
        MediaFile(io.BytesIO(two_tracks("-f", "matroska")), 2).probe(60)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7])
@pytest.mark.parametrize("name", ["mp3", "wav", "flac", "ogg"])
def test_a_file_cut_short_gives_what_is_there_or_a_clear_refusal(name: str, kept: float) -> None:
    whole = media.ffmpeg("-f", "lavfi", "-i", "sine=d=4", *FORMATS[name])
    try:
        assert decoded(whole[: int(len(whole) * kept)]) < 4.0
    except SpeechError as error:
        assert 400 <= error.status < 500


def test_a_wav_header_may_lie_about_its_length() -> None:
    data = bytearray(media.tone(2.0))
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert decoded(bytes(data)) == pytest.approx(2.0)


def test_rubbish_behind_the_audio_costs_no_more_than_a_moment() -> None:
    rubbish = media.tone(2.0) + bytes(100_000_000)
    started = time.monotonic()
    assert decoded(rubbish) == pytest.approx(2.0)
    assert time.monotonic() - started < 20


def test_whoever_decodes_may_take_his_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_PATIENCE_SECONDS", 0.05)
    mp3 = media.ffmpeg("-f", "lavfi", "-i", "sine=d=60:r=44100", "-f", "mp3")
    samples = 0
    for block in MediaFile(io.BytesIO(mp3)).decode(100):
        time.sleep(0.1)
        samples += len(block)
    assert samples / 16_000 == pytest.approx(60, abs=0.1)


def test_damage_in_the_middle_loses_only_itself() -> None:
    data = bytearray(media.ffmpeg("-f", "lavfi", "-i", "sine=d=4", "-f", "mp3"))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    assert decoded(bytes(data)) > 3.0


def test_declared_length_is_limited_before_decoding() -> None:
    with pytest.raises(TooLong):
        MediaFile(io.BytesIO(media.tone(5.0))).probe(4.0)


def test_a_small_file_that_plays_for_hours_is_limited() -> None:
    hour = media.ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "3600", "-f", "flac")
    assert len(hour) < 1_000_000
    with pytest.raises(TooLong):
        MediaFile(io.BytesIO(hour)).probe(600)


def test_length_is_limited_even_where_it_is_not_declared() -> None:
    hour = bytearray(
        media.ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "3600", "-f", "flac")
    )
    # STREAMINFO: the 36 bits of the number of samples; 0 means unknown (RFC 9639, 8.2).
    hour[21] &= 0xF0
    hour[22:26] = bytes(4)
    with pytest.raises(TooLong):
        MediaFile(io.BytesIO(bytes(hour))).probe(600)
    with pytest.raises(TooLong):
        sum(len(block) for block in MediaFile(io.BytesIO(bytes(hour))).decode(600))


def test_playlists_open_no_other_file_and_no_connection(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(media.tone(1.0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        connections: list[object] = []

        def listen() -> None:
            with suppress(TimeoutError):
                connections.append(listener.accept())

        watching = threading.Thread(target=listen)
        watching.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.wav"
        for target in (str(secret), f"file://{secret}", url):
            for playlist in _playlists(target):
                with pytest.raises((NotAudio, NoAudio)):
                    decoded(playlist.encode())
        watching.join()
    assert connections == []


def _playlists(target: str) -> list[str]:
    return [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{target}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f"<Period><AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
        f'<?xml version="1.0"?><playlist><trackList><track><location>{target}</location></track>'
        "</trackList></playlist>",
    ]


@pytest.mark.parametrize("kind", ["wav", "ogg", "raw", "samples"])
def test_a_recording_can_be_heard_again_though_the_first_time_was_given_up(kind: str) -> None:
    """As a job does that has waited for a model."""
    samples = (np.sin(np.arange(5 * media.RATE) / 9) * 9000).astype(np.int16)
    file = media.wav(samples)
    if kind == "ogg":
        with tempfile.NamedTemporaryFile(suffix=".wav") as source:
            source.write(file)
            source.flush()
            file = media.ffmpeg("-i", source.name, "-f", "ogg")
    recordings: dict[str, Recording] = {
        "raw": RawFile(io.BytesIO(samples.tobytes()), 2 * len(samples)),
        "samples": Samples(samples),
    }
    recording = recordings.get(kind) or MediaFile(io.BytesIO(file))
    whole = np.concatenate(list(recording.decode(60)))
    given_up = recording.decode(60)
    next(given_up)
    again = np.concatenate(list(recording.decode(60)))
    assert len(whole) > 4.9 * media.RATE
    assert np.array_equal(whole, again)


def test_raw_samples_need_no_header() -> None:
    data = media.tone(1.0)[44:]
    recording = RawFile(io.BytesIO(data), len(data))
    assert recording.probe(10) == 1.0
    assert b"".join(block.tobytes() for block in recording.decode(10)) == data
    with pytest.raises(TooLong):
        recording.probe(0.5)


CUT = {
    "webm": (("-c:a", "libopus", "-f", "webm"), (4, 30, 110, 300), "all pieces of the recorder"),
    "mkv": (("-c:a", "aac", "-f", "matroska"), (4, 30, 110, 300), "all pieces of the recorder"),
    "m4a": (("-c:a", "aac", "-f", "mp4"), (12, 30, 600, 0.6), r"index \(moov\) is missing"),
    "fragments": (
        ("-c:a", "aac", "-f", "mp4", "-movflags", "frag_keyframe+empty_moov"),
        (12, 30, 60, 300),
        r"index \(moov\) is missing",
    ),
    "ogg": (("-c:a", "libvorbis", "-f", "ogg"), (4, 30, 300, 0.6), "all pieces of the recorder"),
    "flac": (("-f", "flac"), (4, 30, 300), "send the whole file"),
    "mp3": (("-f", "mp3"), (4, 30, 110), "send the whole file"),
    "wav": (("-f", "wav"), (4, 12, 30), "no samples behind its header"),
    "aiff": (("-f", "aiff"), (12, 30), "send the whole file"),
    "wma": (("-f", "asf"), (30, 110), "send the whole file"),
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_ends_too_early_is_called_incomplete(name: str) -> None:
    arguments, sizes, cure = CUT[name]
    data = media.ffmpeg("-f", "lavfi", "-i", "sine=d=2", *arguments)
    for size in sizes:
        count = size if isinstance(size, int) else int(len(data) * size)
        with pytest.raises(IncompleteFile, match=f"is incomplete: .*{cure}"):
            MediaFile(io.BytesIO(data[:count])).probe(60)
