"""WhisperX in its container: true words, their times, and who speaks them."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import openai
import pysubs2
import pytest
import webvtt
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from tests.speech.dialogues import DIALOGUES, Cast, Dialogue, dialogue
from tests.speech.synthesis import Speech, join, silence, speak, write_wav

from . import media
from .harness import wait_until
from .speech_service.routes.test_openai import PATH, client_of, error_of
from .test_engine_readme import output_of
from .whisperx import (
    SHIPPED,
    SPEECH,
    UNPUNCTUATED,
    Container,
    docker,
    figure,
    running,
    sample,
    text,
    transcribed,
)

pytestmark = pytest.mark.docker

SAMPLES = json.loads((SPEECH / "samples" / "samples.json").read_text())
SPOKEN = [sample for sample in SAMPLES if sample["text"] and sample["duration"] < 12]
EMPTY = [sample for sample in SAMPLES if not sample["text"]]
README = (SHIPPED / "README.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8002"
CURLS = re.findall(r"^curl .*$", README, re.MULTILINE)
[PROGRAM] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COLLAR_SECONDS = 0.25
"""On either side of a turn's limits, as is usual; pyannote.metrics counts both sides."""


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Container]:
    with running(folder) as container:
        container.until_ready()
        yield container


@pytest.fixture(scope="module")
def http(service: Container) -> httpx.Client:
    return service.http


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[Cast, tuple[Dialogue, bytes]]:
    """The dialogues of the tests, spoken once."""
    path = tmp_path_factory.mktemp("dialogues") / "a.wav"
    return {cast: (made := dialogue(cast), recorded(made.speech, path)) for cast in DIALOGUES}


@pytest.fixture(scope="module")
def heard(
    http: httpx.Client, recordings: dict[Cast, tuple[Dialogue, bytes]]
) -> dict[Cast, dict[str, Any]]:
    """What the service makes of each dialogue without a hint at the number of speakers."""
    return {cast: transcribed(http, data, diarize="true") for cast, (_, data) in recordings.items()}


def recorded(speech: Speech, path: Path) -> bytes:
    write_wav(path, speech)
    return path.read_bytes()


def plain(word: str) -> str:
    return word.strip(".").lower()


def ninety_percent(errors: list[float]) -> float:
    return quantiles(errors, n=10)[-1]


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda spoken: str(spoken["file"]))
def test_every_word_of_every_language_is_heard(spoken: dict[str, Any], http: httpx.Client) -> None:
    found = transcribed(http, sample(spoken["file"]))
    assert text(found) == spoken["text"]
    assert found["language"] == spoken["language"]
    assert found["duration"] == pytest.approx(spoken["duration"], abs=0.01)
    assert [plain(word["word"]) for word in found["word_segments"]] == [
        plain(word["word"]) for word in spoken["words"]
    ]


def test_words_begin_and_end_when_they_are_spoken(
    recordings: dict[Cast, tuple[Dialogue, bytes]], heard: dict[Cast, dict[str, Any]]
) -> None:
    starts, ends = [], []
    for cast, (made, _) in recordings.items():
        truth = [word for turn in made.turns for word in turn.words]
        found = heard[cast]["word_segments"]
        assert [plain(word["word"]) for word in found] == [plain(word.text) for word in truth]
        starts += [abs(f["start"] - t.start) for f, t in zip(found, truth, strict=True)]
        ends += [abs(f["end"] - t.end) for f, t in zip(found, truth, strict=True)]
    assert ninety_percent(starts) < 0.050
    assert ninety_percent(ends) < 0.150


def test_two_voices_are_two_speakers(heard: dict[Cast, dict[str, Any]]) -> None:
    counts = [len(found["speakers"]) for found in heard.values()]
    assert len(counts) >= 10
    assert counts.count(2) >= 0.9 * len(counts)


def test_what_is_said_is_said_by_the_right_one(
    recordings: dict[Cast, tuple[Dialogue, bytes]], heard: dict[Cast, dict[str, Any]]
) -> None:
    rate = DiarizationErrorRate(collar=2 * COLLAR_SECONDS)
    for cast, (made, _) in recordings.items():
        reference, hypothesis = Annotation(), Annotation()
        for turn in made.turns:
            reference[Segment(turn.start, turn.end)] = turn.voice
        for segment in heard[cast]["segments"]:
            hypothesis[Segment(segment["start"], segment["end"])] = segment["speaker"]
        rate(reference, hypothesis, uem=Timeline([Segment(0, made.speech.duration)]))
    assert abs(rate) <= 0.10


def test_a_number_of_speakers_is_taken_at_its_word(
    http: httpx.Client, recordings: dict[Cast, tuple[Dialogue, bytes]]
) -> None:
    for _, data in recordings.values():
        found = transcribed(http, data, diarize="true", num_speakers="2")
        assert found["speakers"] == ["SPEAKER_00", "SPEAKER_01"]
    data = next(iter(recordings.values()))[1]
    one = transcribed(http, data, diarize="true", max_speakers="1")
    assert one["speakers"] == ["SPEAKER_00"]
    three = transcribed(http, data, diarize="true", min_speakers="3")
    assert len(three["speakers"]) >= 3


@pytest.mark.parametrize("empty", EMPTY, ids=lambda empty: str(empty["file"]))
@pytest.mark.parametrize("diarize", ["false", "true"])
def test_where_nobody_speaks_nothing_is_heard(
    empty: dict[str, Any], diarize: str, http: httpx.Client
) -> None:
    found = transcribed(http, sample(empty["file"]), diarize=diarize)
    assert (found["segments"], found["word_segments"]) == ([], [])
    assert "speakers" not in found


def test_every_output_names_the_speakers(
    http: httpx.Client, recordings: dict[Cast, tuple[Dialogue, bytes]]
) -> None:
    made, data = next(iter(recordings.values()))
    fields = {"diarize": "true", "num_speakers": "2"}

    def output(kind: str) -> str:
        answer = http.post("/transcribe", files={"file": data}, data={**fields, "output": kind})
        return answer.text

    turns = [turn.text for turn in made.turns]
    lines = output("text").splitlines()
    assert [line.partition(": ")[2] for line in lines] == turns
    assert {line.partition(": ")[0] for line in lines} == {"SPEAKER_00", "SPEAKER_01"}
    srt = pysubs2.SSAFile.from_string(output("srt"), format_="srt")
    assert [cue.plaintext.partition(": ")[2] for cue in srt] == turns
    vtt = webvtt.from_buffer(io.StringIO(output("vtt")))
    assert [cue.text for cue in vtt.captions] == turns
    assert {cue.voice for cue in vtt.captions} == {"SPEAKER_00", "SPEAKER_01"}
    assert len(output("tsv").splitlines()) == 1 + len(turns)


def turns_of(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Who says which words, one turn after the other, by the words alone."""
    words = ((word["speaker"], word["word"].lower()) for word in found["word_segments"])
    return [(who, [word for _, word in said]) for who, said in groupby(words, itemgetter(0))]


@pytest.mark.parametrize("cast", DIALOGUES[:3], ids=str)
def test_where_nothing_is_punctuated_a_segment_still_has_one_speaker(
    cast: Cast, http: httpx.Client, recordings: dict[Cast, tuple[Dialogue, bytes]]
) -> None:
    made, data = recordings[cast]
    found = transcribed(http, data, diarize="true", model=UNPUNCTUATED, language=cast.language)
    names = dict(zip(cast.voices, ("SPEAKER_00", "SPEAKER_01"), strict=True))
    assert made.turns[0].voice == cast.voices[0]
    assert turns_of(found) == [
        (names[turn.voice], [plain(word.text) for word in turn.words]) for turn in made.turns
    ]
    assert found["speakers"] == ["SPEAKER_00", "SPEAKER_01"]
    for segment in found["segments"]:
        assert {word["speaker"] for word in segment["words"]} == {segment["speaker"]}


def test_every_format_changes_speakers_where_the_words_do(
    http: httpx.Client, recordings: dict[Cast, tuple[Dialogue, bytes]]
) -> None:
    _, data = next(iter(recordings.values()))
    common = {"diarize": "true", "model": UNPUNCTUATED, "language": "en"}
    expected = [
        (who, " ".join(words)) for who, words in turns_of(transcribed(http, data, **common))
    ]

    def answer(path: str, **fields: str) -> httpx.Response:
        return http.post(path, files={"file": ("a.wav", data)}, data=common | fields)

    def lines(text: str) -> list[tuple[str, str]]:
        parts = (line.partition(": ") for line in text.splitlines())
        return [(who, " ".join(said.lower().split())) for who, _, said in parts]

    assert lines(answer("/transcribe", output="text").text) == expected
    assert lines(answer(PATH, response_format="text").text) == expected
    rows = answer("/transcribe", output="tsv").text.splitlines()[1:]
    assert lines("\n".join(row.split("\t")[2] for row in rows)) == expected
    srt = pysubs2.SSAFile.from_string(answer(PATH, response_format="srt").text, format_="srt")
    assert lines("\n".join(cue.plaintext for cue in srt)) == expected
    vtt = webvtt.from_buffer(io.StringIO(answer(PATH, response_format="vtt").text))
    assert [(cue.voice, cue.text.lower()) for cue in vtt.captions] == expected
    verbose = answer(
        PATH, response_format="verbose_json", **{"timestamp_granularities[]": "word"}
    ).json()
    assert turns_of({"word_segments": verbose["words"]}) == [
        (who, said.split()) for who, said in expected
    ]
    for diarized in (
        verbose["segments"],
        answer(PATH, response_format="diarized_json").json()["segments"],
        events_of(answer(PATH, response_format="diarized_json", stream="true"), "segment"),
        events_of(answer("/transcribe", stream="true"), "segment"),
    ):
        said = [(part["speaker"], " ".join(part["text"].lower().split())) for part in diarized]
        assert said == expected


def events_of(answer: httpx.Response, kind: str) -> list[dict[str, Any]]:
    """The streamed events of one kind."""
    data = (line.removeprefix("data: ") for line in answer.text.splitlines() if line)
    return [event for event in map(json.loads, data) if event["type"].endswith(kind)]


@pytest.mark.parametrize("pause", [0.3, 0.6])
def test_an_answer_within_a_sentence_is_its_speakers(
    pause: float, http: httpx.Client, tmp_path: Path
) -> None:
    parts = [
        speak(text, "en", voice, speed=155, lead=0, tail=0)
        for voice, text in (
            ("m5", "open garden window"),
            ("f4", "seven"),
            ("m5", "hello world nine"),
            ("f4", "thanks four"),
        )
    ]
    whole = join([silence(0.5), join(parts, [pause] * 3), silence(0.5)])
    found = transcribed(
        http,
        recorded(whole, tmp_path / "a.wav"),
        diarize="true",
        model=UNPUNCTUATED,
        language="en",
        num_speakers="2",
    )
    assert [who for who, _ in turns_of(found)] == ["SPEAKER_00", "SPEAKER_01"] * 2
    assert turns_of(found)[1][1] == ["seven"]


def voice_of(voice: str, path: Path) -> str:
    """Some seconds of somebody's voice, as a data URL."""
    said = speak("one two garden window seven hello.", "en", voice, speed=158)
    encoded = base64.b64encode(recorded(said, path)).decode()
    return f"data:audio/wav;base64,{encoded}"


@pytest.mark.parametrize("cast", DIALOGUES[:3], ids=str)
def test_known_voices_have_their_names(
    cast: Cast,
    http: httpx.Client,
    recordings: dict[Cast, tuple[Dialogue, bytes]],
    tmp_path: Path,
) -> None:
    made, data = recordings[cast]
    second = cast.voices[1]
    with client_of(http) as client:
        found = client.audio.transcriptions.create(
            model="whisper-1",
            file=("a.wav", data),
            response_format="diarized_json",
            known_speaker_names=["somebody", second],
            known_speaker_references=[
                voice_of("max", tmp_path / "a.wav"),
                voice_of(second, tmp_path / "b.wav"),
            ],
        )
    assert isinstance(found, openai.types.audio.TranscriptionDiarized)
    names = {cast.voices[0]: "SPEAKER_00", second: second}
    said = [(segment.speaker, segment.text) for segment in found.segments]
    assert said == [(names[turn.voice], turn.text) for turn in made.turns]
    assert (found.model_extra or {})["warnings"] == ["nobody sounds like 'somebody'"]


def test_a_known_voice_that_says_nothing_is_refused(http: httpx.Client) -> None:
    quiet = base64.b64encode(media.silence(3.0)).decode()
    fields = {
        "diarize": "true",
        "known_speaker_names[]": "Anna",
        "known_speaker_references[]": f"data:audio/wav;base64,{quiet}",
    }
    answer = http.post("/transcribe", files={"file": sample("demo.wav")}, data=fields)
    assert error_of(answer) == (400, "invalid_request", "known_speaker_references")


def test_without_alignment_speakers_are_told_apart_all_the_same(
    http: httpx.Client, recordings: dict[Cast, tuple[Dialogue, bytes]]
) -> None:
    _, data = next(iter(recordings.values()))
    found = transcribed(http, data, align="false", diarize="true", num_speakers="2")
    assert found["speakers"] == ["SPEAKER_00", "SPEAKER_01"]


def test_a_translation_says_that_its_words_are_not_aligned(http: httpx.Client) -> None:
    spoken = next(sample for sample in SPOKEN if sample["file"] == "french.wav")
    found = transcribed(http, sample("french.wav"), task="translate")
    assert text(found) == spoken["translation"]
    assert found["language"] == "en"
    assert "translation" in found["warnings"][0]


def test_the_official_client_reads_who_speaks(
    http: httpx.Client, recordings: dict[Cast, tuple[Dialogue, bytes]]
) -> None:
    made, data = next(iter(recordings.values()))
    with client_of(http) as client:
        found = client.audio.transcriptions.create(
            model="whisper-1",
            file=("a.wav", data),
            response_format="diarized_json",
            chunking_strategy="auto",
            extra_body={"num_speakers": 2},
        )
    assert isinstance(found, openai.types.audio.TranscriptionDiarized)
    assert [segment.text for segment in found.segments] == [turn.text for turn in made.turns]
    assert len({segment.speaker for segment in found.segments}) == 2


def test_openais_formats_are_those_of_the_other_engine(http: httpx.Client) -> None:
    with client_of(http) as client:
        found = client.audio.transcriptions.create(
            model="whisper-1",
            file=("a.wav", sample("demo.wav")),
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert found.text == "Hello world. Open garden window seven. Thanks."
    assert [plain(word.word) for word in found.words or ()][:2] == ["hello", "world"]


def test_a_stream_tells_the_stages_in_their_order(http: httpx.Client) -> None:
    fields = {"diarize": "true", "stream": "true"}
    answer = http.post("/transcribe", files={"file": sample("demo.wav")}, data=fields)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:6] == "data: "]
    stages = [event["stage"] for event in events if event["type"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["transcribe", "align", "diarize"]
    for stage in ("transcribe", "align", "diarize"):
        done = [event["progress"] for event in events if event.get("stage") == stage]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0.0, 1.0)
    assert text(events[-1]["result"]) == "Hello world. Open garden window seven. Thanks."


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (400, "empty_file")),
        (b"%PDF-1.7\n" + bytes(2000), (415, "not_audio")),
        (b"\x7fELF" + bytes(2000), (415, "not_audio")),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n", (415, "not_audio")),
    ],
    ids=["empty", "PDF", "ELF", "HLS"],
)
def test_what_is_no_audio_is_refused(
    data: bytes, expected: tuple[int, str], http: httpx.Client
) -> None:
    answer = http.post("/transcribe", files={"file": ("a.mp3", data)}, data={"diarize": "true"})
    assert error_of(answer)[:2] == expected


def test_a_file_cut_off_is_heard_as_far_as_it_goes(http: httpx.Client) -> None:
    mp3 = media.ffmpeg("-i", str(SPEECH / "samples" / "demo.wav"), "-f", "mp3")
    found = transcribed(http, mp3[: len(mp3) * 2 // 3], diarize="true")
    assert text(found).startswith("Hello world.")


def test_the_job_of_a_client_that_leaves_is_stopped(service: Container) -> None:
    stopped = figure(service.http, "speech_jobs_cancelled_total")
    with httpx.Client(base_url=service.http.base_url, trust_env=False) as hasty:
        fields = {"diarize": "true", "stream": "true"}
        files = {"file": sample("minute.flac")}
        with hasty.stream("POST", "/transcribe", files=files, data=fields, timeout=60) as answer:
            assert next(answer.iter_lines()).startswith("data: ")
    wait_until(lambda: figure(service.http, "speech_jobs_cancelled_total") == stopped + 1, 60)
    wait_until(lambda: figure(service.http, "speech_jobs_running") == 0, 60)


def test_three_at_once_all_get_their_own_answer(http: httpx.Client) -> None:
    spoken = SPOKEN[:3]
    with ThreadPoolExecutor(3) as threads:
        found = threads.map(lambda each: transcribed(http, sample(each["file"])), spoken)
        assert [text(each) for each in found] == [each["text"] for each in spoken]


@pytest.mark.parametrize("command", CURLS)
def test_the_readmes_commands_work(command: str, http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(sample("demo.wav"))
    said = output_of(["bash", "-c", here(command, http).replace("curl", "curl -fsS")], tmp_path)
    assert ("Hello" if "speech.wav" in command else "tiny") in said


def test_the_readmes_program_works(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(sample("demo.wav"))
    said = output_of([sys.executable, "-c", here(PROGRAM, http)], tmp_path)
    assert re.fullmatch(r"  0\.7\d SPEAKER_\d\d: Hello world\.", said.splitlines()[0])


def here(text: str, http: httpx.Client) -> str:
    """Text of the README with the address of this container."""
    assert ADDRESS in text
    return text.replace(ADDRESS, str(http.base_url).rstrip("/"))


def test_a_language_without_an_alignment_model_is_transcribed_with_a_warning(
    folder: Path, tmp_path: Path
) -> None:
    french = tmp_path / "models"
    shutil.copytree(folder / "whisper", french / "whisper")
    shutil.copytree(folder / "alignment", french / "alignment" / "fr")
    with running(french) as service:
        answer = service.http.post(
            "/transcribe", files={"file": sample("demo.wav")}, data={"language": "la"}
        )
        assert answer.status_code == 200
        (warning,) = answer.json()["warnings"]
        assert "'la'" in warning
        refused = service.http.post("/transcribe", files={"file": sample("demo.wav")})
        assert error_of(refused)[:2] == (503, "model_not_baked")


def test_it_ends_cleanly(folder: Path) -> None:
    with running(folder) as service:
        docker("stop", "--time", "30", service.name)
        assert (service.state["ExitCode"], service.state["OOMKilled"]) == (0, False)
