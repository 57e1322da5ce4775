"""What each answer format looks like, read back by parsers that others maintain."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pysubs2
import webvtt
from speech_service.contract.transcript import Segment, Summary, Transcript
from speech_service.http import formats

from ...harness import segment

SAID = (segment("one two three", 0.12), segment("four <five> & six", 2.0, 1))
HEARD = Summary("fr", 0.9, 4.5, 4.0)
FOUND = Transcript("transcribe", HEARD, SAID)


def test_text_is_one_line() -> None:
    assert formats.text(FOUND) == "one two three four <five> & six\n"


def test_json_has_text_and_the_duration_used() -> None:
    usage = {"type": "duration", "seconds": 4.5}
    assert formats.json(FOUND) == {"text": "one two three four <five> & six", "usage": usage}


def test_every_object_says_what_could_not_be_done() -> None:
    warned = replace(FOUND, summary=replace(HEARD, warnings=("no room",)))
    objects = (
        formats.json(warned),
        formats.verbose_json(warned),
        formats.diarized_json(warned),
        json.loads(formats.whisper_json(warned, words=False)),
    )
    assert [found["warnings"] for found in objects] == [["no room"]] * 4
    assert "warnings" not in formats.verbose_json(FOUND)


def test_verbose_json_has_every_field_of_whisper() -> None:
    answer = formats.verbose_json(FOUND)
    assert list(answer) == ["task", "language", "duration", "text", "segments", "usage"]
    assert answer["language"] == "fr"
    assert answer["segments"][1] == {
        "id": 1,
        "seek": 0,
        "start": 2.0,
        "end": 4.0,
        "text": " four <five> & six",
        "tokens": [0, 1, 2, 3],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 0.0,
        "no_speech_prob": 0.0,
    }


def test_verbose_json_lists_words_where_they_are_asked_for() -> None:
    answer = formats.verbose_json(FOUND, words=True)
    assert [word["word"] for word in answer["words"]][:4] == ["one", "two", "three", "four"]
    assert answer["words"][0] == {"word": "one", "start": 0.12, "end": 0.62, "probability": 0.9}
    within = [word for segment in answer["segments"] for word in segment["words"]]
    assert within == answer["words"], "faster-whisper-server has them in the segments"


def test_a_translation_is_english_whatever_was_spoken() -> None:
    assert formats.verbose_json(Transcript("translate", HEARD, SAID))["language"] == "en"


def test_srt_is_read_by_an_independent_parser() -> None:
    found = pysubs2.SSAFile.from_string(formats.srt(FOUND), format_="srt", keep_html_tags=True)
    assert [(cue.start, cue.end, cue.plaintext) for cue in found] == [
        (120, 1620, "one two three"),
        (2000, 4000, "four <five> & six"),
    ]


def test_vtt_is_read_by_an_independent_parser() -> None:
    written = formats.vtt(FOUND)
    assert written.startswith("WEBVTT\n\n")
    assert "four &lt;five&gt; &amp; six" in written
    found = webvtt.from_buffer(io.StringIO(written))
    assert [(cue.start, cue.end) for cue in found.captions] == [
        ("00:00:00.120", "00:00:01.620"),
        ("00:00:02.000", "00:00:04.000"),
    ]


def test_an_arrow_in_the_text_is_no_line_of_times() -> None:
    said = (Segment(0, 0, 0.0, 1.0, " a --> b"),)
    written = formats.srt(Transcript("transcribe", HEARD, said))
    assert written.count("-->") == 1


def test_hours_are_counted() -> None:
    late = (segment("late", 3 * 3600 + 62.0005),)
    assert "03:01:02,000 --> 03:01:02,500" in formats.srt(Transcript("transcribe", HEARD, late))


def test_tsv_is_whispers_table() -> None:
    assert formats.tsv(FOUND).splitlines()[:2] == ["start\tend\ttext", "120\t1620\tone two three"]


def test_nothing_heard_is_valid_in_every_format() -> None:
    nothing = Transcript("transcribe", Summary("en", 0.5, 3.0, 0.0), ())
    assert formats.json(nothing)["text"] == ""
    assert formats.verbose_json(nothing, words=True)["segments"] == []
    assert formats.srt(nothing) == ""
    assert formats.vtt(nothing) == "WEBVTT\n\n"
    assert formats.tsv(nothing) == "start\tend\ttext\n"
