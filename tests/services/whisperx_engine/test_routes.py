"""WhisperX' own route over a real socket; the test decides what the engine hears."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from speech_service.contract.engine import Abilities
from speech_service.contract.errors import ModelUnavailable
from speech_service.contract.transcript import Options, Progress, Speakers, Stage, Summary, Word
from whisperx_engine import routes

from ..harness import FakeEngine, serve
from ..speech_service.routes.test_openai import error_of, file
from ..test_speakers import ANNA, BERT, TURNS, diarizing

PATH = "/transcribe"


def words(found: dict[str, Any]) -> list[str]:
    return [word["word"] for word in found["words"]]


def test_the_answer_is_that_of_whisperx() -> None:
    with serve(diarizing(), [routes.router]) as http:
        found = http.post(PATH, files=file(), data={"diarize": "true"}).json()
    assert list(found) == ["segments", "word_segments", "language", "duration", "speakers"]
    assert found["segments"][2] == {
        "start": 3.0,
        "end": 4.5,
        "text": "five & six",
        "avg_logprob": 0.0,
        "speaker": BERT,
        "words": [
            {"word": "five", "start": 3.0, "end": 3.5, "score": 0.9, "speaker": BERT},
            {"word": "&", "start": 3.5, "end": 4.0, "score": 0.9, "speaker": BERT},
            {"word": "six", "start": 4.0, "end": 4.5, "score": 0.9, "speaker": BERT},
        ],
    }
    assert [word["word"] for word in found["word_segments"]][:3] == ["one", "two", "three"]
    assert found["speakers"] == [ANNA, BERT]


def test_a_word_whose_time_was_guessed_has_no_score() -> None:
    guessed = replace(TURNS[0], words=(Word(0.0, 1.0, " 42", None),), speaker=None)
    with serve(FakeEngine(says=(guessed,)), [routes.router]) as http:
        found = http.post(PATH, files=file()).json()
    assert found["word_segments"] == [{"word": "42", "start": 0.0, "end": 1.0}]
    assert "speaker" not in found["segments"][0]
    assert "speakers" not in found


def test_what_could_not_be_done_is_a_warning() -> None:
    class Warned(FakeEngine):
        def transcribe(self, audio: Any, options: Options) -> Any:
            yield Summary("mi", 0.9, 1.0, 1.0, ("no words",))

    with serve(Warned(), [routes.router]) as http:
        assert http.post(PATH, files=file()).json()["warnings"] == ["no words"]


@pytest.mark.parametrize("field", ["file", "audio_file"])
def test_both_names_of_the_file_are_known(field: str) -> None:
    with serve(diarizing(), [routes.router]) as http:
        assert http.post(PATH, files={field: file()["file"]}).status_code == 200


@pytest.mark.parametrize("place", ["params", "data"])
def test_fields_come_in_the_form_or_in_the_query(place: str) -> None:
    engine = diarizing()
    fields = {
        "model": "org/small",
        "language": "fr",
        "task": "translate",
        "align": "false",
        "diarize": "1",
        "num_speakers": "2",
        "min_speakers": "1",
        "max_speakers": "3",
        "initial_prompt": "Bonjour",
        "hotwords": "Sablier",
        "batch_size": "4",
    }
    with serve(engine, [routes.router]) as http:
        sent: dict[str, Any] = {place: fields}
        assert http.post(PATH, files=file(), **sent).status_code == 200
    assert engine.loads == ["tiny", "org/small"]
    assert engine.asked == [
        Options(
            task="translate",
            language="fr",
            prompt="Bonjour",
            hotwords="Sablier",
            words=False,
            speakers=Speakers(2, 1, 3),
            batch_size=4,
        )
    ]


def test_fields_that_say_nothing_are_left_out() -> None:
    engine = diarizing()
    nothing = {"language": "auto", "min_speakers": "", "batch_size": "null", "hotwords": ""}
    with serve(engine, [routes.router]) as http:
        assert http.post(PATH, files=file(), params=nothing).status_code == 200
        answer = http.post(PATH, files=file(), data={**nothing, "output": " SRT", "align": "True"})
    assert answer.text.startswith("1\n")
    assert engine.asked == [Options(words=True)] * 2


def test_alignment_is_the_default_and_diarization_is_not() -> None:
    engine = diarizing()
    with serve(engine, [routes.router]) as http:
        http.post(PATH, files=file())
    assert (engine.asked[0].words, engine.asked[0].speakers) == (True, None)


@pytest.mark.parametrize(
    ("output", "media_type", "beginning"),
    [
        ("text", "text/plain; charset=utf-8", f"{ANNA}: one two three four\n"),
        ("srt", "text/plain; charset=utf-8", "1\n00:00:00,000 --> "),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n"),
        ("tsv", "text/plain; charset=utf-8", "start\tend\ttext\n"),
    ],
)
def test_every_output_is_what_it_says(output: str, media_type: str, beginning: str) -> None:
    with serve(diarizing(), [routes.router]) as http:
        answer = http.post(PATH, files=file(), data={"output": output})
        events = http.post(PATH, files=file(), data={"output": output, "stream": "true"})
    assert answer.headers["content-type"] == media_type
    assert answer.text.startswith(beginning)
    assert BERT in answer.text
    assert json.loads(events.text.strip().rpartition("data: ")[2])["result"] == answer.text


def test_a_stream_tells_stages_sentences_and_the_whole() -> None:
    with serve(diarizing(), [routes.router]) as http:
        whole = http.post(PATH, files=file()).json()
        stream = http.post(PATH, files=file(), data={"stream": "true"})
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line]
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert [event["type"] for event in events] == ["progress"] * 2 + ["segment"] * 3 + ["done"]
    assert events[0] == {"type": "progress", "stage": "diarize", "progress": 0.0}
    assert {k: v for k, v in events[2].items() if k != "type"} == whole["segments"][0]
    assert events[-1]["result"] == whole


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"output": "ass"}, "output"),
        ({"language": "klingon"}, "language"),
        ({"batch_size": "0"}, "batch_size"),
        ({"diarize": "perhaps"}, "diarize"),
        ({"diarize": "true", "min_speakers": "3", "max_speakers": "2"}, "num_speakers"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, str], param: str) -> None:
    with serve(diarizing(), [routes.router]) as http:
        assert error_of(http.post(PATH, files=file(), data=fields)) == (
            422,
            "invalid_field",
            param,
        )


def test_trouble_with_the_token_is_a_503_that_says_so_also_in_a_stream() -> None:
    class Gated(FakeEngine):
        abilities = Abilities(live=False, speakers=True)

        def transcribe(self, audio: Any, options: Options) -> Any:
            if options.speakers:
                raise ModelUnavailable("set HF_TOKEN", "hf_token_missing")
            yield Progress(Stage.TRANSCRIBE, 1.0)
            yield from super().transcribe(audio, options)

    with serve(Gated(), [routes.router]) as http:
        refused = http.post(PATH, files=file(), data={"diarize": "true"})
        stream = http.post(PATH, files=file(), data={"diarize": "true", "stream": "true"})
        served = http.post(PATH, files=file())
    assert error_of(refused)[:2] == (503, "hf_token_missing")
    assert json.loads(stream.text.strip()[6:])["error"]["code"] == "hf_token_missing"
    assert served.status_code == 200
