"""From windows to segments, with a library that says what the test wants."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper_engine import recognizer as recognizer_module
from faster_whisper_engine.recognizer import WhisperRecognizer
from faster_whisper_engine.voice import Voice
from numpy.typing import NDArray
from speech_service.contract.transcript import Options, Segment, Summary, Word
from speech_service.media.windows import Window
from tokenizers import Tokenizer

from ..program import MODEL

RATE = 16_000


def said(text: str, start: float, end: float, words: bool = False) -> Any:
    spoken = [SimpleNamespace(start=start, end=end, word=text, probability=0.5)] if words else None
    return SimpleNamespace(
        text=text,
        start=start,
        end=end,
        seek=100,
        tokens=[1, 2],
        temperature=None,
        avg_logprob=-0.25,
        compression_ratio=1.5,
        no_speech_prob=0.125,
        words=spoken,
    )


class Library:
    """Hears the same in every window, and remembers how it was asked."""

    def __init__(self, *segments: Any, language: str = "fr") -> None:
        self.segments = segments
        self.language = language
        self.asked: list[dict[str, Any]] = []
        self.model = SimpleNamespace(is_multilingual=True)
        self.max_length = 448
        self.hf_tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))

    def transcribe(self, samples: NDArray[np.float32], **options: Any) -> Any:
        self.asked.append(options)
        info = SimpleNamespace(
            duration=len(samples) / RATE, language=self.language, language_probability=0.75
        )
        return list(self.segments), info

    def detect_language(self, samples: NDArray[np.float32], vad_filter: bool) -> Any:
        assert vad_filter
        return "de", 0.5, []


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is a window, so that a recording of some seconds has several."""

    def each(blocks: Iterator[NDArray[np.int16]], seconds: float = 0) -> Iterator[Window]:
        position = 0
        for block in blocks:
            yield Window(position / RATE, block.astype(np.float32))
            position += len(block)

    monkeypatch.setattr(recognizer_module, "windows", each)


def heard(library: Library, seconds: int = 2, **options: Any) -> tuple[list[Segment], Summary]:
    """The segments and the summary of so many windows of one second."""
    options.setdefault("voice_activity", None)
    blocks = iter([np.ones(RATE, np.int16)] * seconds)
    recognizer = WhisperRecognizer(library)  # type: ignore[arg-type]
    *segments, summary = recognizer.transcribe(blocks, Options(**options))
    assert isinstance(summary, Summary)
    return [each for each in segments if isinstance(each, Segment)], summary


def test_times_and_numbers_are_those_of_the_recording() -> None:
    segments, summary = heard(Library(said(" one", 0.25, 0.5, words=True)))
    assert segments == [
        Segment(
            id=number,
            seek=100 + 100 * number,
            start=number + 0.25,
            end=number + 0.5,
            text=" one",
            tokens=(1, 2),
            temperature=0.0,
            avg_logprob=-0.25,
            compression_ratio=1.5,
            no_speech_prob=0.125,
            words=(Word(number + 0.25, number + 0.5, " one", 0.5),),
        )
        for number in range(2)
    ]
    assert summary == Summary("fr", 0.75, 2.0, 2.0)


def test_words_in_the_silence_that_pads_a_window_are_put_at_its_end() -> None:
    segments, _ = heard(Library(said(" one", -0.5, 9.0)), seconds=1)
    assert (segments[0].start, segments[0].end) == (0.0, 1.0)
    assert segments[0].words is None


def test_the_first_window_tells_the_language_of_the_rest() -> None:
    library = Library(said(" un", 0.0, 0.5))
    heard(library, seconds=3)
    assert [asked["language"] for asked in library.asked] == [None, "fr", "fr"]
    asked_for = Library(said(" un", 0.0, 0.5))
    heard(asked_for, language="en")
    assert [asked["language"] for asked in asked_for.asked] == ["en", "en"]


def test_each_window_knows_the_text_before_it() -> None:
    library = Library(said(" " + "x" * 500, 0.0, 0.5))
    heard(library, seconds=3, prompt="Hi")
    prompts = [asked["initial_prompt"] for asked in library.asked]
    assert prompts[0] == "Hi"
    assert prompts[1] == "Hi " + "x" * 500
    assert len(prompts[2]) == 800


def test_what_has_no_room_before_the_text_is_a_warning_of_the_whole() -> None:
    library = Library(said(" un", 0.0, 0.5))
    _, summary = heard(library, seconds=2, prompt="hello " * 300, hotwords="world " * 300)
    (warning,) = summary.warnings
    assert "the first 111 of 300" in warning
    assert [asked["hotwords"].split() for asked in library.asked] == [["world"] * 111] * 2


def test_a_temperature_is_used_as_it_is_and_none_is_searched() -> None:
    library = Library()
    heard(library, seconds=1)
    heard(library, seconds=1, temperature=0.5)
    assert library.asked[0]["temperature"] == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert library.asked[1]["temperature"] == 0.5


@pytest.mark.parametrize(("asked", "told"), [(None, "en"), ("fr", "fr")])
def test_where_nobody_speaks_nothing_is_decoded(
    asked: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SimpleNamespace(samples=np.zeros(0, np.float32))
    monkeypatch.setattr(Voice, "of", lambda samples, vad: silent)
    library = Library(said(" one", 0.0, 0.5))
    segments, summary = heard(library, language=asked, voice_activity=Options().voice_activity)
    assert (segments, library.asked) == ([], [])
    assert summary == Summary(told, 0.0, 2.0, 0.0)


@pytest.mark.parametrize(("multilingual", "expected"), [(True, ("de", 0.5)), (False, ("en", 1.0))])
def test_a_language_is_detected_without_a_transcription(
    multilingual: bool, expected: tuple[str, float]
) -> None:
    library = Library()
    library.model.is_multilingual = multilingual
    segments, summary = heard(library, language_only=True)
    assert (segments, library.asked) == ([], [])
    assert (summary.language, summary.language_probability) == expected
    assert summary.duration == 1.0, "only the first window is listened to"
