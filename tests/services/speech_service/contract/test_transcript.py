"""What a transcript tells of itself."""

from __future__ import annotations

from dataclasses import replace

from speech_service.contract.transcript import Segment, Summary, Transcript

HEARD = Summary("fr", 0.9, 4.0, 3.5)
ONE = Segment(0, 0, 0.0, 1.0, " Bonjour", tokens=(1, 2), speaker="SPEAKER_01")
TWO = Segment(1, 0, 1.0, 2.0, " le monde.", tokens=(3,), speaker="SPEAKER_00")
SAID = Transcript("transcribe", HEARD, (ONE, TWO, replace(TWO, id=2, text="", tokens=())))


def test_the_text_is_that_of_all_segments_as_they_are_spaced() -> None:
    assert SAID.text == "Bonjour le monde."
    assert Transcript("transcribe", HEARD, ()).text == ""


def test_a_translation_is_english_whatever_was_spoken() -> None:
    assert SAID.language == "fr"
    assert replace(SAID, task="translate").language == "en"


def test_each_speaker_is_named_once_in_the_order_of_speaking_and_nobody_is_none() -> None:
    assert SAID.speakers == ["SPEAKER_01", "SPEAKER_00"]
    assert replace(SAID, segments=(replace(ONE, speaker=None),)).speakers == []


def test_tokens_are_those_that_the_model_generated() -> None:
    assert SAID.output_tokens == 3
