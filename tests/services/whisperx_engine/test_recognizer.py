"""The three stages in their order, each of them a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from faster_whisper_engine.recognizer import WhisperRecognizer
from speech_service.contract.errors import ModelMissing, ModelUnavailable
from speech_service.contract.transcript import (
    KnownSpeaker,
    Options,
    Progress,
    Segment,
    Speakers,
    Stage,
    Summary,
    Word,
)
from whisperx_engine.pipeline import BatchedWhisper, Stretch
from whisperx_engine.recognizer import WhisperXRecognizer
from whisperx_engine.sources import NoAlignmentModel

from ..harness import segment

RATE = 16_000
SECONDS = 3
ALIGNED = Segment(0, 0, 0.5, 1.5, " one", words=(Word(0.5, 1.5, " one", 0.9),))
SAID = segment("one two")


@dataclass
class Stages:
    """What each stage is asked for, and the recognizer that asks."""

    stretches: tuple[Stretch, ...] = (Stretch(0.5, 1.5, " one", -0.5),)
    language: str = "fr"
    refusal: Exception | None = None
    asked: list[str] = field(default_factory=list)
    options: list[Options] = field(default_factory=list)
    made: int = 0

    def recognizer(self) -> WhisperXRecognizer:
        return WhisperXRecognizer(
            cast("WhisperRecognizer", self),
            self.make,
            self.borrow,
            self.find_alignment,
            self.find_diarization,
        )

    # The plain recognizer, and its tokenizer.
    @property
    def whisper(self) -> Any:
        def encode(text: str, add_special_tokens: bool) -> Any:
            offsets = [(end - 1, end) for end in range(1, len(text) + 1)]
            return SimpleNamespace(ids=[len(text)], offsets=offsets)

        return SimpleNamespace(hf_tokenizer=SimpleNamespace(encode=encode), max_length=448)

    def transcribe(self, audio: Any, options: Options) -> Iterator[Any]:
        self.options.append(options)
        seconds = sum(map(len, audio)) / RATE
        if not options.language_only:
            self.asked.append("plain")
            yield SAID
        yield Summary(options.language or self.language, 0.75, seconds, seconds)

    # The batched pipeline, the aligner and the diarizer.
    def make(self) -> BatchedWhisper:
        self.made += 1
        return cast("BatchedWhisper", SimpleNamespace(transcribe=self.batched))

    def batched(self, samples: Any, language: str, options: Options, report: Any) -> list[Stretch]:
        self.options.append(options)
        self.asked.append(f"batched {language}")
        report(50.0)
        return list(self.stretches)

    @contextmanager
    def borrow(self, name: str) -> Iterator[Any]:
        self.asked.append(f"borrow {name}")

        def align(stretches: Any, samples: Any, report: Any) -> list[Segment]:
            return [ALIGNED]

        def voices(known: Any) -> dict[str, list[float]]:
            self.asked.append("voices")
            return {each.name: [1.0] for each in known}

        def assign(
            segments: Any, samples: Any, speakers: Speakers, report: Any, voices: Any
        ) -> list[Segment]:
            name = next(iter(voices), "SPEAKER_00")
            return [replace(each, speaker=name) for each in segments]

        yield SimpleNamespace(align=align, assign=assign, voices=voices)

    def find_alignment(self, language: str) -> None:
        if self.refusal:
            raise self.refusal

    def find_diarization(self) -> None:
        self.asked.append("find diarization")
        if self.refusal:
            raise self.refusal


def heard(stages: Stages, **options: Any) -> tuple[list[Segment], Summary, list[Stage]]:
    """The segments, the summary, and the stages that reported their end."""
    blocks = iter([np.ones(RATE, np.int16)] * SECONDS)
    *items, summary = stages.recognizer().transcribe(blocks, Options(**options))
    ended = [item.stage for item in items if isinstance(item, Progress) and item.done == 1]
    assert isinstance(summary, Summary)
    return [item for item in items if isinstance(item, Segment)], summary, ended


def test_without_words_and_speakers_it_is_the_plain_engine() -> None:
    stages = Stages()
    assert heard(stages) == ([SAID], Summary("fr", 0.75, SECONDS, SECONDS), [])
    assert (stages.asked, stages.made) == (["plain"], 0)


def test_words_are_aligned_with_the_speech_in_the_language_that_was_heard() -> None:
    stages = Stages()
    segments, summary, ended = heard(stages, words=True)
    assert segments == [replace(ALIGNED, tokens=(len(" one"),))]
    assert stages.asked == ["borrow :libraries", "batched fr", "borrow alignment:fr"]
    assert ended == [Stage.TRANSCRIBE, Stage.ALIGN]
    assert summary == Summary("fr", 0.75, SECONDS, 1.0), "a second of it is speech"


def test_what_has_no_room_before_the_text_is_a_warning() -> None:
    stages = Stages()
    _, summary, _ = heard(stages, words=True, hotwords="w " * 400)
    [warning] = summary.warnings
    assert "the first 223 of 800" in warning
    hotwords = stages.options[-1].hotwords or ""
    assert len(hotwords) <= 223 and set(hotwords.split()) == {"w"}


def test_a_language_that_is_given_is_not_listened_for() -> None:
    stages = Stages()
    _, summary, _ = heard(stages, words=True, language="en")
    assert stages.options == [Options(words=True, language="en")]
    assert (summary.language, summary.language_probability) == ("en", 1.0)
    assert "batched en" in stages.asked


def test_only_the_beginning_is_listened_to_for_the_language() -> None:
    stages = Stages()
    recognizer = stages.recognizer()
    blocks = iter([np.ones(RATE, np.int16)] * 90)
    *_, summary = recognizer.transcribe(blocks, Options(words=True))
    assert stages.options[0] == Options(language_only=True)
    assert isinstance(summary, Summary) and summary.duration == 90


def test_where_nobody_speaks_no_model_is_borrowed() -> None:
    stages = Stages(stretches=())
    segments, summary, _ = heard(stages, words=True, speakers=Speakers())
    assert (segments, summary.duration_after_vad) == ([], 0)
    assert stages.asked == ["find diarization", "borrow :libraries", "batched fr"]


@pytest.mark.parametrize(
    ("options", "refusal", "reason"),
    [
        ({"task": "translate"}, None, "a translation cannot be aligned"),
        ({}, NoAlignmentModel("there is no alignment model for 'la'"), "for 'la'"),
    ],
)
def test_what_cannot_be_aligned_has_whispers_words_and_a_warning(
    options: dict[str, Any], refusal: Exception | None, reason: str
) -> None:
    stages = Stages(refusal=refusal)
    segments, summary, ended = heard(stages, words=True, **options)
    assert segments == [SAID]
    assert ended == [Stage.TRANSCRIBE]
    [warning] = summary.warnings
    assert reason in warning and warning.endswith("word times are Whisper's own estimate")
    assert stages.options[-1].language == "fr", "it has been listened for once"


def test_a_translation_with_words_needs_no_libraries() -> None:
    stages = Stages()
    heard(stages, words=True, task="translate")
    assert stages.asked == ["plain"]


def test_speakers_are_told_without_alignment_too() -> None:
    stages = Stages()
    segments, _, ended = heard(stages, speakers=Speakers())
    assert [each.speaker for each in segments] == ["SPEAKER_00"]
    expected = ["find diarization", "borrow :libraries", "plain", "borrow diarization:"]
    assert stages.asked == expected
    assert stages.options[-1].words, "a turn may end within a sentence"
    assert ended == [Stage.TRANSCRIBE, Stage.DIARIZE]


def test_a_missing_model_of_speakers_is_told_before_anything_is_decoded() -> None:
    stages = Stages(refusal=ModelUnavailable("set HF_TOKEN", "hf_token_missing"))
    with pytest.raises(ModelUnavailable, match="HF_TOKEN"):
        heard(stages, words=True, speakers=Speakers())
    assert stages.asked == ["find diarization"]


def test_known_voices_are_listened_to_first_and_who_is_not_heard_is_a_warning() -> None:
    stages = Stages()
    known = (KnownSpeaker("Anna", b""), KnownSpeaker("Bert", b""))
    segments, summary, _ = heard(stages, words=True, speakers=Speakers(known=known))
    assert stages.asked[2:5] == ["borrow diarization:", "voices", "batched fr"]
    assert [each.speaker for each in segments] == ["Anna"]
    assert summary.warnings == ("nobody sounds like 'Bert'",)


def test_an_alignment_model_that_cannot_be_had_now_is_an_error_and_no_warning() -> None:
    stages = Stages(refusal=ModelUnavailable("offline", "model_not_baked"))
    with pytest.raises(ModelUnavailable):
        heard(stages, words=True)
    assert stages.made == 0


@pytest.mark.parametrize("options", [{"words": True}, {"speakers": Speakers()}], ids=str)
def test_a_model_that_has_to_be_fetched_is_named_before_there_is_anything(
    options: dict[str, Any],
) -> None:
    stages = Stages(refusal=ModelMissing("alignment:org/french"))
    items = stages.recognizer().transcribe(iter([np.ones(RATE, np.int16)]), Options(**options))
    with pytest.raises(ModelMissing):
        next(items)


def test_the_pipeline_is_made_once_for_all_recordings() -> None:
    stages = Stages()
    recognizer = stages.recognizer()
    for _ in range(2):
        list(recognizer.transcribe(iter([np.ones(RATE, np.int16)]), Options(words=True)))
    assert stages.made == 1
