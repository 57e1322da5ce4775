"""Who speaks, in every format and on OpenAI's route; the test decides what the engine hears."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import pysubs2
import pytest
import webvtt
from speech_service.contract.engine import Abilities
from speech_service.contract.transcript import (
    Progress,
    Segment,
    Speakers,
    Stage,
    Summary,
    Transcript,
)
from speech_service.http import formats

from . import media
from .harness import FakeEngine, segment, serve
from .speech_service.routes.test_openai import PATH, client_of, error_of, file

ANNA, BERT = "SPEAKER_00", "SPEAKER_01"


def said(text: str, start: float, number: int, speaker: str) -> Segment:
    """A segment by one speaker, as are all its words."""
    found = segment(text, start, number)
    words = tuple(replace(word, speaker=speaker) for word in found.words or ())
    return replace(found, words=words, speaker=speaker)


TURNS = (
    said("one two", 0.0, 0, ANNA),
    said("three four", 1.5, 1, ANNA),
    said("five & six", 3.0, 2, BERT),
)
DIALOGUE = Transcript("transcribe", Summary("en", 0.9, 5.0, 4.0), TURNS)


def diarizing() -> FakeEngine:
    return FakeEngine(
        says=(Progress(Stage.DIARIZE, 0.0), Progress(Stage.DIARIZE, 1.0), *TURNS),
        abilities=Abilities(live=False, speakers=True),
    )


def test_text_has_a_line_for_each_turn() -> None:
    assert formats.text(DIALOGUE) == f"{ANNA}: one two three four\n{BERT}: five & six\n"


def test_srt_names_the_speaker_of_each_cue() -> None:
    found = pysubs2.SSAFile.from_string(formats.srt(DIALOGUE), format_="srt", keep_html_tags=True)
    assert [cue.plaintext for cue in found] == [
        f"{ANNA}: one two",
        f"{ANNA}: three four",
        f"{BERT}: five & six",
    ]


def test_vtt_names_the_speaker_as_its_voice() -> None:
    found = webvtt.from_buffer(io.StringIO(formats.vtt(DIALOGUE)))
    assert [(cue.voice, cue.text) for cue in found.captions] == [
        (ANNA, "one two"),
        (ANNA, "three four"),
        (BERT, "five &amp; six"),
    ]


def test_tsv_names_the_speaker_of_each_row() -> None:
    assert formats.tsv(DIALOGUE).splitlines()[3] == f"3000\t4500\t{BERT}: five & six"


def test_the_name_counts_as_part_of_a_cue() -> None:
    long = said("abcd " * 40, 0.0, 0, ANNA)
    long = replace(long, words=tuple(replace(w, end=w.start + 0.01) for w in long.words or ()))
    written = formats.srt(replace(DIALOGUE, segments=(long,)))
    lines = [line for line in written.splitlines() if line.startswith(ANNA)]
    assert len(lines) > 1
    assert max(map(len, lines)) <= 84


def test_the_official_client_reads_diarized_json() -> None:
    engine = diarizing()
    with serve(engine) as http, client_of(http) as client:
        found = client.audio.transcriptions.create(
            model="whisper-1",
            response_format="diarized_json",
            chunking_strategy="auto",
            **file(),
        )
    assert [(part.id, part.speaker, part.text) for part in found.segments] == [
        ("seg_001", ANNA, "one two"),
        ("seg_002", ANNA, "three four"),
        ("seg_003", BERT, "five & six"),
    ]
    assert found.text == "one two three four five & six"
    (asked,) = engine.asked
    assert (asked.speakers, asked.words) == (Speakers(), True)


def test_the_official_client_streams_who_speaks() -> None:
    with serve(diarizing()) as http, client_of(http) as client:
        stream = client.audio.transcriptions.create(
            model="whisper-1", response_format="diarized_json", stream=True, **file()
        )
        events = list(stream)
    spoken = [event.speaker for event in events if event.type == "transcript.text.segment"]
    assert spoken == [ANNA, ANNA, BERT]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "one two three four five & six"


def test_subtitles_get_names_where_they_are_asked_for() -> None:
    engine = diarizing()
    with serve(engine) as http:
        fields = {"response_format": "srt", "diarize": "true", "num_speakers": "2"}
        answer = http.post(PATH, files=file(), data=fields)
    assert f"{BERT}: five & six" in answer.text
    assert engine.asked[0].speakers == Speakers(exactly=2)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_speakers": "0"}, (422, "num_speakers")),
        ({"num_speakers": "1", "min_speakers": "2"}, (422, "num_speakers")),
        ({"min_speakers": "3", "max_speakers": "2"}, (422, "num_speakers")),
        ({"max_speakers": "many"}, (422, "max_speakers")),
    ],
)
def test_impossible_numbers_of_speakers_are_refused(
    fields: dict[str, str], expected: tuple[int, str]
) -> None:
    with serve(diarizing()) as http:
        answer = http.post(PATH, files=file(), data={"diarize": "true", **fields})
    status, _, param = error_of(answer)
    assert (status, param) == expected


@pytest.mark.parametrize("fields", [{"diarize": "true"}, {"response_format": "diarized_json"}])
def test_an_engine_that_knows_no_speakers_says_so(fields: dict[str, str]) -> None:
    with serve() as http:
        answer = http.post(PATH, files=file(), data=fields)
    assert error_of(answer) == (400, "invalid_request", "response_format")


def data_url(data: bytes) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(data).decode()}"


VOICE = media.tone(3.0)


def test_the_official_client_introduces_speakers() -> None:
    engine = diarizing()
    with serve(engine) as http, client_of(http) as client:
        client.audio.transcriptions.create(
            model="whisper-1",
            response_format="diarized_json",
            known_speaker_names=["Anna", "Bert"],
            known_speaker_references=[data_url(VOICE), data_url(media.tone(9.9))],
            **file(),
        )
    (asked,) = engine.asked
    assert asked.speakers is not None
    assert [known.name for known in asked.speakers.known] == ["Anna", "Bert"]
    assert asked.speakers.known[0].samples == VOICE[44:]


@pytest.mark.parametrize(
    ("names", "references", "reason"),
    [
        (["Anna"], [], "must be pairs"),
        ([], [data_url(VOICE)], "must be pairs"),
        (["Anna", "Anna"], [data_url(VOICE)] * 2, "each name once"),
        (["Anna"], ["garbage"], "must be data URLs"),
        (["Anna"], ["data:audio/wav;base64,!!"], "must be data URLs"),
        (["Anna"], [data_url(b"garbage")], "recording of 'Anna'"),
        (["Anna"], [data_url(media.tone(1.0))], "shorter than 2 seconds"),
        (["Anna"], [data_url(media.tone(11.0))], "longer than the 10"),
    ],
)
def test_speakers_that_cannot_be_known_are_refused(
    names: list[str], references: list[str], reason: str
) -> None:
    engine = diarizing()
    fields = {"known_speaker_names[]": names, "known_speaker_references[]": references}
    with serve(engine) as http:
        data = {**fields, "response_format": "diarized_json"}
        answer = http.post(PATH, files=file(), data=data)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"]
    assert engine.asked == []


@pytest.mark.parametrize("names", [["a"] * 5, ["a\nb"], ["x" * 65]])
def test_a_name_is_short_and_one_of_four_at_most(names: list[str]) -> None:
    fields = {"known_speaker_names[]": names, "known_speaker_references[]": data_url(VOICE)}
    with serve(diarizing()) as http:
        answer = http.post(PATH, files=file(), data={"diarize": "true", **fields})
    assert error_of(answer) == (422, "invalid_field", "known_speaker_names")


@pytest.mark.parametrize("engine", [diarizing(), FakeEngine()])
def test_nobody_is_introduced_where_no_speakers_are_told_apart(engine: FakeEngine) -> None:
    fields = {"known_speaker_names[]": "Anna", "known_speaker_references[]": data_url(VOICE)}
    with serve(engine) as http:
        answer = http.post(PATH, files=file(), data=fields)
    assert error_of(answer) == (400, "invalid_request", "known_speaker_names")


def test_a_name_is_text_in_every_format() -> None:
    named = tuple(replace(turn, speaker="A & <B>") for turn in TURNS)
    found = webvtt.from_buffer(io.StringIO(formats.vtt(replace(DIALOGUE, segments=named))))
    assert [cue.text for cue in found.captions][0] == "one two"


def test_a_translation_has_no_diarized_json() -> None:
    with serve(diarizing()) as http:
        fields = {"response_format": "diarized_json"}
        answer = http.post("/v1/audio/translations", files=file(), data=fields)
    assert error_of(answer) == (400, "invalid_request", "response_format")


def test_the_time_of_each_stage_is_a_metric() -> None:
    with serve(diarizing()) as http:
        http.post(PATH, files=file(), data={"diarize": "true"})
        figures = http.get("/metrics").text
    assert 'speech_stage_seconds_count{stage="diarize"} 1.0' in figures
