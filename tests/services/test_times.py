"""Times are a player's: what starts late in a video is late in every format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pysubs2
import pytest

from . import media
from .harness import wait_until
from .program import Program, program
from .test_faster_whisper import ALL, ENGLISH, PATH, Sample

LATE_SECONDS = 4.9


def late(sample: Sample, *options: str) -> bytes:
    """A video whose speech starts late."""
    picture = ["-f", "lavfi", "-i", "testsrc=d=30:s=32x32:r=25", "-map", "0:a", "-map", "1:v"]
    source = ["-itsoffset", f"{LATE_SECONDS}", "-i", str(sample.path), *picture]
    return media.ffmpeg(*source, "-c:v", "mpeg4", "-bf", "0", *options)


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    started: Program
    with program(tmp_path_factory.mktemp("engine"), WHISPER__TTL="-1") as started:
        wait_until(lambda: started.http.get("/ready").status_code == 200, 30)
        yield started.http


def asked(http: httpx.Client, path: str, data: bytes, **fields: str) -> httpx.Response:
    name = "audio_file" if path.startswith("/asr") else "file"
    answer = http.post(path, files={name: ("a.mkv", data)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize(
    "container",
    [
        ["-c:a", "flac", "-f", "matroska"],
        ["-c:a", "pcm_s16le", "-f", "mov"],
        ["-c:a", "aac", "-b:a", "192k", "-f", "mp4"],
        ["-c:a", "aac", "-b:a", "192k", "-f", "mpegts"],
    ],
    ids=lambda options: str(options[-1]),
)
def test_words_and_subtitles_are_where_the_voice_is(
    http: httpx.Client, container: list[str]
) -> None:
    data = late(ENGLISH, *container)
    words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    found = asked(http, PATH, data, **words).json()
    assert found["text"] == ENGLISH.text
    for word, true in zip(found["words"], ENGLISH.words, strict=True):
        assert word["start"] == pytest.approx(LATE_SECONDS + true["start"], abs=0.35)
    assert found["duration"] == pytest.approx(LATE_SECONDS + ENGLISH.duration, abs=0.1)
    first = LATE_SECONDS + ENGLISH.words[0]["start"]
    for path, fields in ((PATH, {"response_format": "srt"}), ("/asr?output=vtt&vad_filter=1", {})):
        text = asked(http, path, data, **fields).text
        cues = pysubs2.SSAFile.from_string(text)
        assert cues[0].start / 1000 == pytest.approx(first, abs=0.2)
        assert " ".join(cue.plaintext for cue in cues) == ENGLISH.text


def test_streams_and_other_families_have_the_same_times(http: httpx.Client) -> None:
    data = late(ENGLISH, "-c:a", "flac", "-f", "matroska")
    first = pytest.approx(LATE_SECONDS + ENGLISH.words[0]["start"], abs=0.3)
    assert asked(http, "/transcribe", data).json()["segments"][0]["start"] == first
    assert (
        json.loads(asked(http, "/asr?output=json&vad_filter=1", data).text)["segments"][0]["start"]
        == first
    )
    fields = {"stream": "true", "response_format": "verbose_json"}
    streamed = asked(http, f"{PATH}?stream_format=fws", data, **fields).text
    event = json.loads(streamed.splitlines()[0].removeprefix("data: "))
    assert event["segments"][0]["start"] == first


def test_speech_behind_a_hole_keeps_its_time(http: httpx.Client) -> None:
    # What is cut out is the quiet between two sentences, and nobody writes that it is.
    gap = max(
        range(1, len(ENGLISH.words)),
        key=lambda n: ENGLISH.words[n]["start"] - ENGLISH.words[n - 1]["end"],
    )
    begin, end = ENGLISH.words[gap - 1]["end"] + 0.1, ENGLISH.words[gap]["start"] - 0.1
    cut = f"asetnsamples=320,aselect='not(between(t,{begin},{end}))'"
    options = ["-af", cut, "-c:a", "flac", "-f", "matroska"]
    data = media.ffmpeg("-i", str(ENGLISH.path), *options)
    words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    found = asked(http, PATH, data, **words).json()
    assert found["text"] == ENGLISH.text
    starts = [word["start"] for word in found["words"]]
    assert starts == pytest.approx([word["start"] for word in ENGLISH.words], abs=0.3)


ROUTES: dict[str, str] = {
    PATH: "text",
    "/v1/audio/translations": "text",
    "/transcribe": "text",
    "/asr?output=json": "text",
    "/detect-language": "language_code",
}


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_takes_the_track_that_is_asked_for(http: httpx.Client, path: str) -> None:
    french = ALL["french.wav"]
    sources = ["-i", str(ENGLISH.path), "-i", str(french.path), "-map", "0", "-map", "1"]
    data = media.ffmpeg(*sources, "-c:a", "flac", "-f", "matroska")
    name = "audio_file" if path.startswith(("/asr", "/detect")) else "file"

    def answer(**track: Any) -> Any:
        in_query = name == "audio_file"
        found = http.post(
            path,
            files={name: ("a.mkv", data)},
            params={"output": "json", **track} if in_query else None,
            data=None if in_query else track,
        )
        return found.json()

    key = ROUTES[path]
    assert answer()[key] == answer(track=0)[key] != answer(track=1)[key]
    assert "audio tracks, counted from 0" in json.dumps(answer(track=2))
    assert "track" in json.dumps(answer(track=-1))
