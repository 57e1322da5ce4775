"""What alignment makes of a stretch of speech, with a library that finds what the test wants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from speech_service.contract.transcript import Word
from whisperx_engine.alignment import Aligner, pool_name
from whisperx_engine.pipeline import Stretch

from .stand_ins import stand_in

SAMPLES = np.zeros(16_000, np.float32)


class Library:
    """Finds the sentences that it was made with, and remembers what it was given."""

    def __init__(self, *sentences: dict[str, Any]) -> None:
        self.sentences = sentences
        self.given: list[dict[str, Any]] = []

    def align(self, stretches: Any, *rest: Any, progress_callback: Any) -> dict[str, Any]:
        self.given = stretches
        progress_callback(100.0)
        return {"segments": list(self.sentences)}


def sentence(*words: dict[str, Any], start: float = 1.0, end: float = 3.0) -> dict[str, Any]:
    text = " ".join(word["word"] for word in words)
    return {"start": start, "end": end, "text": text, "words": list(words), "avg_logprob": -0.5}


def word(text: str, start: float, end: float, score: float = 0.9) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, "score": score}


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Align with what the library finds; the segments."""

    def aligned(*sentences: dict[str, Any], language: str = "en") -> Any:
        library = Library(*sentences)
        stand_in(monkeypatch, "whisperx.alignment", align=library.align)
        aligner = Aligner(object(), {"language": language}, "cpu")
        reports: list[float] = []
        found = aligner.align([Stretch(1.0, 3.0, "text", -0.5)], SAMPLES, reports.append)
        assert reports == [100.0]
        return found

    return aligned


def test_a_sentence_lies_where_its_words_do(aligned: Any) -> None:
    [found] = aligned(sentence(word("one", 1.25, 1.5), word("two.", 1.75, 2.5)))
    assert (found.start, found.end, found.text, found.avg_logprob) == (1.25, 2.5, " one two.", -0.5)
    assert found.words == (Word(1.25, 1.5, " one", 0.9), Word(1.75, 2.5, " two.", 0.9))


def test_what_was_not_heard_letter_by_letter_shares_the_gap(aligned: Any) -> None:
    numbers = ({"word": "42"}, {"word": "17", "start": float("nan"), "end": 1.0})
    [found] = aligned(sentence(word("one", 1.0, 1.5), *numbers, word("two", 2.5, 3.0)))
    assert found.words is not None
    assert [(each.word, each.start, each.end) for each in found.words] == [
        (" one", 1.0, 1.5),
        (" 42", 1.5, 2.0),
        (" 17", 2.0, 2.5),
        (" two", 2.5, 3.0),
    ]
    assert [each.probability for each in found.words] == [0.9, None, None, 0.9]


def test_a_sentence_of_which_nothing_was_heard_keeps_its_limits(aligned: Any) -> None:
    [numbers] = aligned(sentence({"word": "42"}, {"word": "17"}))
    assert [(each.start, each.end) for each in numbers.words] == [(1.0, 2.0), (2.0, 3.0)]
    [nothing] = aligned(sentence())
    assert (nothing.start, nothing.end, nothing.words) == (1.0, 3.0, ())


def test_characters_of_languages_without_spaces_stand_close(aligned: Any) -> None:
    [found] = aligned(sentence(word("你", 1.0, 1.5), word("好", 1.5, 2.0)), language="zh")
    assert "".join(each.word for each in found.words) == "你好"


def test_a_score_that_is_no_number_is_no_probability(aligned: Any) -> None:
    [found] = aligned(sentence(word("one", 1.0, 1.5, float("nan"))))
    assert found.words[0].probability is None


def test_a_stretch_without_text_never_reaches_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    stand_in(monkeypatch, "whisperx.alignment", align=library.align)
    aligner = Aligner(object(), {"language": "en"}, "cpu")
    empty, spoken = Stretch(0.0, 1.0, " ", 0.0), Stretch(1.0, 2.0, " one", -0.5)
    assert aligner.align([empty], SAMPLES, lambda done: None) == []
    aligner.align([empty, spoken], SAMPLES, lambda done: None)
    assert [given["text"] for given in library.given] == [" one"]


def test_no_client_can_ask_for_a_model_of_alignment() -> None:
    assert pool_name("en") == "alignment:en"
