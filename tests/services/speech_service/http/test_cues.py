"""Subtitle cues: short enough to read, on time, never overlapping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_service.contract.transcript import Segment, Word
from speech_service.http.cues import Cue, cues

from ...harness import segment, words


def spoken(*parts: tuple[Word, ...]) -> Segment:
    every = [word for part in parts for word in part]
    text = "".join(word.word for word in every)
    return Segment(0, 0, every[0].start, every[-1].end, text, words=tuple(every))


def test_a_short_segment_is_one_cue_at_the_times_of_its_words() -> None:
    assert list(cues([segment("one two three", 0.12)])) == [Cue(120, 1620, "one two three")]


def test_a_pause_begins_a_new_cue() -> None:
    found = list(cues([spoken(words("one", "two"), words("three", start=2.0))]))
    assert found == [Cue(0, 1000, "one two"), Cue(2000, 2500, "three")]


def test_a_long_segment_is_cut_at_seven_seconds() -> None:
    found = list(cues([segment(" ".join(["word"] * 30))]))
    assert [cue.text.count("word") for cue in found] == [14, 14, 2]
    assert all(cue.end - cue.start <= 7000 for cue in found)


def test_a_cut_prefers_the_end_of_a_sentence() -> None:
    texts = [*["word"] * 9, "done.", *["more"] * 10]
    first, second = cues([spoken(words(*texts))])
    assert first.text.endswith("done.")
    assert second.text.startswith("more")


def test_many_letters_are_cut_before_the_eighty_fifth() -> None:
    found = list(cues([spoken(words(*["abcdefghij"] * 20, each=0.1))]))
    assert [len(cue.text) for cue in found] == [76, 76, 65]


def test_without_word_times_a_segment_is_cut_in_proportion() -> None:
    long = Segment(0, 0, 0.0, 20.0, " ".join(["abcd"] * 40))
    found = list(cues([long]))
    assert len(found) > 2
    assert found[0].start == 0
    assert all(cue.end - cue.start <= 7000 and len(cue.text) <= 84 for cue in found)


def test_a_word_that_lasts_too_long_does_not_hold_its_cue() -> None:
    (cue,) = cues([spoken((Word(1.0, 30.0, " hm", 0.5),))])
    assert cue == Cue(1000, 8000, "hm")


def test_times_are_rounded_not_cut_off() -> None:
    (cue,) = cues([spoken((Word(0.0009, 0.4996, " hm", 0.5),))])
    assert (cue.start, cue.end) == (1, 500)


def test_nothing_said_is_no_cue() -> None:
    assert list(cues([Segment(0, 0, 0.0, 1.0, "  ")])) == []
    silent = spoken((Word(0.0, 1.0, " ", 0.5),), words("one", start=2.0))
    assert list(cues([silent])) == [Cue(2000, 2500, "one")]


TIMES = st.floats(0, 3600, allow_nan=False)
WORDS = st.builds(
    lambda start, length, text: Word(start, start + length, " " + text, 0.5),
    TIMES,
    st.floats(0, 12),
    st.text(st.characters(categories=["L", "P"]), min_size=1, max_size=20),
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=40), max_size=4))
def test_whatever_an_engine_says_cues_are_ordered_and_never_overlap(
    groups: list[list[Word]],
) -> None:
    said = [spoken(tuple(group)) for group in groups]
    found = list(cues(said))
    assert all(cue.start < cue.end for cue in found)
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert all(len(cue.text) <= 84 for cue in found)
    said_letters = "".join(word.word for group in groups for word in group).replace(" ", "")
    assert "".join(cue.text for cue in found).replace(" ", "") == said_letters


@pytest.mark.parametrize("limit", [1.0, 3.0])
def test_the_limits_can_be_chosen(limit: float) -> None:
    found = list(cues([segment(" ".join(["word"] * 12))], max_seconds=limit))
    assert all(cue.end - cue.start <= limit * 1000 for cue in found)
