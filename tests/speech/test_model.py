"""The model reads its samples as samples.json says, through faster-whisper itself."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from faster_whisper import BatchedInferencePipeline, WhisperModel

from tests.speech.synthesis import RATE, UnknownVoice, join, say, silence, speak
from tests.speech.vocabulary import TEST_VOICES, TRAINING_VOICES, WORDS, tokenizer, translate

HERE = Path(__file__).parent
SAMPLES: list[dict[str, Any]] = json.loads((HERE / "samples" / "samples.json").read_text())
SPOKEN = [sample for sample in SAMPLES if sample["text"]]
ONE_WINDOW = [sample for sample in SPOKEN if sample["duration"] < 30]
FOREIGN = [sample for sample in SPOKEN if "translation" in sample]


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    return WhisperModel(str(HERE / "model"), device="cpu", compute_type="int8", cpu_threads=1)


def heard(model: WhisperModel, sample: dict[str, Any], **options: Any) -> tuple[list[Any], str]:
    segments, info = model.transcribe(str(HERE / "samples" / sample["file"]), **options)
    return list(segments), info.language


def text_of(segments: list[Any]) -> str:
    return "".join(segment.text for segment in segments).strip()


@pytest.mark.parametrize("options", [{}, {"beam_size": 1}, {"vad_filter": True}], ids=str)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["file"])
def test_a_sample_is_transcribed_word_for_word(
    model: WhisperModel, sample: dict[str, Any], options: dict[str, Any]
) -> None:
    segments, language = heard(model, sample, **options)
    assert text_of(segments) == sample["text"]
    if sample["text"]:
        assert language == sample["language"]


@pytest.mark.parametrize("sample", SPOKEN, ids=lambda sample: sample["file"])
def test_segments_and_words_lie_where_they_were_spoken(
    model: WhisperModel, sample: dict[str, Any]
) -> None:
    segments, _ = heard(model, sample, word_timestamps=True)
    assert [segment.text.strip() for segment in segments] == [
        segment["text"] for segment in sample["segments"]
    ]
    words = [word for segment in segments for word in segment.words]
    errors = [
        abs(word.start - truth["start"]) for word, truth in zip(words, sample["words"], strict=True)
    ]
    long = sample["duration"] > 12
    assert median(errors) < (0.1 if long else 0.08)
    assert max(errors) < (0.3 if long else 0.25)


@pytest.mark.parametrize("sample", FOREIGN, ids=lambda sample: sample["file"])
def test_french_and_russian_are_translated(model: WhisperModel, sample: dict[str, Any]) -> None:
    segments, _ = heard(model, sample, task="translate")
    assert text_of(segments) == sample["translation"]


@pytest.mark.parametrize("sample", ONE_WINDOW, ids=lambda sample: sample["file"])
def test_batched_decoding_reads_the_same_words(model: WhisperModel, sample: dict[str, Any]) -> None:
    segments, _ = BatchedInferencePipeline(model).transcribe(
        str(HERE / "samples" / sample["file"]), without_timestamps=True
    )
    assert text_of(list(segments)) == sample["text"]


def test_no_voice_of_the_samples_was_trained_on() -> None:
    assert not set(TEST_VOICES) & set(TRAINING_VOICES)
    assert {voice for sample in SPOKEN for voice in sample["voices"]} <= set(TEST_VOICES)


def test_every_word_is_one_token_and_other_text_still_encodes() -> None:
    for word in (word for words in WORDS.values() for word in words):
        for spelling in (word, word.capitalize()):
            assert len(tokenizer().encode(f" {spelling}", add_special_tokens=False).ids) == 1
    strange = " Ça va, naïve 東京?"
    assert tokenizer().decode(tokenizer().encode(strange, add_special_tokens=False).ids) == strange


def test_translation_keeps_the_sentences() -> None:
    assert translate("Привет мир. Два.", "ru") == "Hello world. Two."


def test_a_word_is_loud_between_its_times_and_nowhere_else() -> None:
    speech = speak("Hello world. Three.", "en", "f4", gap=0.2)
    assert [word.text for word in speech.words] == ["Hello", "world", "Three"]
    quiet = np.ones(len(speech.audio), bool)
    for word in speech.words:
        start, end = round(word.start * RATE), round(word.end * RATE)
        assert np.abs(speech.audio[start:end]).max() > 0.05
        quiet[start:end] = False
    assert not speech.audio[quiet].any()


def test_joined_recordings_keep_their_words_times() -> None:
    one, two = say("one", "en", "f4"), say("two", "en", "m5")
    both = join([one, two], 0.5)
    assert both.words[1].start == pytest.approx(one.duration + 0.5, abs=1 / RATE)
    assert both.duration == pytest.approx(one.duration + 0.5 + two.duration, abs=2 / RATE)
    with pytest.raises(ValueError, match="1 pauses"):
        join([one, silence(1)], [0.5, 0.5])


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(UnknownVoice, match="xx"):
        say("one", "xx")
