"""Whose each word is: segments that agree with their words, whoever speaks when."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_service.contract.transcript import Segment, Word
from whisperx_engine.speakers import (
    FLICKER_SECONDS,
    PAUSE_SECONDS,
    Turn,
    Turns,
    attributed,
    numbered,
    recognized,
)

ANNA, BERT = "SPEAKER_00", "SPEAKER_01"
SECONDS = st.floats(0, 30)
SPANS = st.tuples(SECONDS, SECONDS).map(sorted)


def sentence(*words: tuple[str, float, float]) -> Segment:
    spoken = tuple(Word(start, end, f" {text}", 0.9) for text, start, end in words)
    text = "".join(word.word for word in spoken)
    return Segment(0, 0, spoken[0].start, spoken[-1].end, text, words=spoken)


def said(segments: list[Segment], *turns: tuple[float, float, str]) -> list[tuple[str | None, str]]:
    """Who says what, after checking that the words agree."""
    found = list(attributed(segments, Turns(Turn(*turn) for turn in turns)))
    for segment in found:
        assert {word.speaker for word in segment.words or ()} <= {segment.speaker}
    return [(segment.speaker, segment.text.strip()) for segment in found]


FIVE = sentence(
    ("one", 0.0, 0.4), ("two", 0.5, 0.9), ("three", 1.0, 1.4), ("four", 1.5, 1.9), ("five", 2, 2.4)
)


def test_a_new_segment_begins_where_the_speaker_changes() -> None:
    assert said([FIVE], (0.0, 0.95, BERT), (0.95, 2.5, ANNA)) == [
        (BERT, "one two"),
        (ANNA, "three four five"),
    ]


def test_the_parts_are_where_their_words_are_and_count_on() -> None:
    turns = Turns([Turn(0.0, 0.95, ANNA), Turn(0.95, 2.5, BERT)])
    found = list(attributed([FIVE, FIVE], turns))
    assert [(part.id, part.start, part.end) for part in found] == [
        (0, 0.0, 0.9),
        (1, 1.0, 2.4),
        (2, 0.0, 0.9),
        (3, 1.0, 2.4),
    ]


def test_an_answer_within_a_sentence_is_a_segment_of_its_own() -> None:
    turns = ((0.0, 0.95, ANNA), (0.95, 1.45, BERT), (1.45, 2.5, ANNA))
    assert [text for _, text in said([FIVE], *turns)] == ["one two", "three", "four five"]


def test_a_lone_word_is_no_turn_where_nobody_is_heard_to_take_it() -> None:
    turns = ((0.0, 2.5, ANNA), (1.0, 1.4 - 0.05, BERT))
    assert said([FIVE], *turns) == [(ANNA, FIVE.text.strip())]
    flicker = ((0.0, 1.1, ANNA), (1.1, 1.1 + FLICKER_SECONDS - 0.1, BERT), (1.4, 2.5, ANNA))
    assert said([FIVE], *flicker) == [(ANNA, FIVE.text.strip())]


def test_a_short_word_that_pauses_set_apart_is_an_answer() -> None:
    end = 1.0 + FLICKER_SECONDS - 0.1
    later = 1.4 + PAUSE_SECONDS
    apart = sentence(("one", 0.0, 0.9), ("yes", 1.0, end), ("two", later, later + 0.5))
    assert [
        text for _, text in said([apart], (0, 0.95, ANNA), (1.0, end, BERT), (later, 3, ANNA))
    ] == ["one", "yes", "two"]


def test_a_sentence_of_one_word_has_nobody_around_it() -> None:
    turns = ((0.0, 0.5, ANNA), (1.0, 1.2, BERT), (1.2, 2.0, ANNA))
    words = [sentence(("one", 0, 0.5)), sentence(("yes", 1.0, 1.2)), sentence(("two", 1.2, 2.0))]
    assert [speaker for speaker, _ in said(words, *turns)] == [ANNA, BERT, ANNA]


def test_where_nobody_is_heard_the_nearest_turn_has_the_word() -> None:
    # Its middle is further away than that of the other one.
    assert said([sentence(("one", 20.3, 20.6))], (0.0, 20.0, ANNA), (21.0, 22.0, BERT)) == [
        (ANNA, "one")
    ]


def test_of_two_voices_at_once_the_word_is_the_one_that_is_heard_longer() -> None:
    assert said([sentence(("one", 1.0, 2.0))], (0.0, 1.6, ANNA), (1.2, 3.0, BERT)) == [
        (BERT, "one")
    ]


def test_a_segment_without_words_has_whoever_is_heard_most() -> None:
    plain = replace(FIVE, words=None)
    assert said([plain], (0.0, 0.5, ANNA), (0.5, 3.0, BERT)) == [(BERT, FIVE.text.strip())]


@pytest.mark.parametrize("text", ["一二三", "一二 三", "one,two  three", ' "one" two-three'])
def test_whatever_stands_between_the_words_stays(text: str) -> None:
    bare = [part for part in ("一", "二", "三", "one", "two", "three") if part in text]
    times = ((0.0, 0.9), (1.0, 1.9), (2.0, 2.9))
    words = tuple(Word(*time, word, 0.9) for time, word in zip(times, bare, strict=True))
    segment = Segment(0, 0, 0.0, 2.9, text, words=words)
    turns = [Turn(0, 0.95, ANNA), Turn(0.95, 1.95, BERT), Turn(1.95, 3, ANNA)]
    found = list(attributed([segment], Turns(turns)))
    assert len(found) == 3
    assert "".join(part.text for part in found) == text
    assert all(word in part.text for word, part in zip(bare, found, strict=True))


def test_a_word_that_is_not_in_the_text_is_looked_for_no_further() -> None:
    words = (Word(0.0, 0.9, "eins", 0.9), Word(1.0, 1.9, "two", 0.9))
    segment = Segment(0, 0, 0.0, 1.9, "1 two", words=words)
    turns = Turns([Turn(0, 0.95, ANNA), Turn(0.95, 2.0, BERT)])
    assert "".join(part.text for part in attributed([segment], turns)) == "1 two"


def test_speakers_are_numbered_as_they_speak_and_the_known_have_their_names() -> None:
    turns = Turns([Turn(0, 0.95, "C"), Turn(0.95, 1.95, "B"), Turn(1.95, 3, "A")])
    found = list(attributed([FIVE, Segment(9, 0, 9, 9, "")], turns))
    assert [part.speaker for part in numbered(found, {})] == [
        ANNA,
        BERT,
        "SPEAKER_02",
        "SPEAKER_02",
    ]
    known = numbered(found, {"B": "Berta", "A": ANNA})
    assert [part.speaker for part in known] == [BERT, "Berta", ANNA, ANNA]
    assert [word.speaker for word in known[0].words or ()] == [BERT, BERT]


def test_who_is_not_known_has_no_number() -> None:
    assert numbered([FIVE], {}) == [FIVE]


def test_the_voices_that_are_most_alike_find_each_other_first() -> None:
    voices = {"Anna": [1.0, 0.0], "Berta": [0.8, 0.6]}
    assert recognized(voices, {"A": [2.0, 0.1], "B": [3.0, 2.0]}) == {"A": "Anna", "B": "Berta"}
    assert recognized(voices, {"A": [3.0, 2.0]}) == {"A": "Berta"}


def test_a_voice_that_is_not_alike_stays_unknown_and_each_name_is_given_once() -> None:
    assert recognized({"Anna": [1.0, 0.0]}, {"A": [0.5, 1.0], "B": [0.0, 0.0]}) == {}
    assert recognized({"Anna": [1.0, 0.0]}, {"A": [1.0, 0.1], "B": [1.0, 0.0]}) == {"B": "Anna"}


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Segment], list[Turn]]:
    """Sentences one after the other, and turns that care nothing for them."""
    sentences: list[Segment] = []
    clock = 0.0
    for length in draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)):
        words = []
        for number in range(length):
            start = clock + draw(st.floats(0, 0.5))
            clock = start + draw(st.floats(0, 1))
            words.append((f"w{len(sentences)}x{number}", start, clock))
        sentences.append(sentence(*words))
    spans = draw(st.lists(st.tuples(SPANS, st.sampled_from("ABC")), min_size=1, max_size=12))
    return sentences, [Turn(start, end, speaker) for (start, end), speaker in spans]


@given(recordings())
def test_segments_agree_with_their_words(recording: tuple[list[Segment], list[Turn]]) -> None:
    sentences, turns = recording
    found = numbered(list(attributed(sentences, Turns(turns))), {})
    assert [part.id for part in found] == list(range(len(found)))
    for part in found:
        assert part.words
        assert {word.speaker for word in part.words} == {part.speaker}
        assert (part.start, part.end) == (part.words[0].start, part.words[-1].end)
        assert part.text == "".join(word.word for word in part.words)
    assert "".join(part.text for part in found) == "".join(each.text for each in sentences)
    words = [word for part in found for word in part.words or ()]
    spoken = [word for each in sentences for word in each.words or ()]
    assert [replace(word, speaker=None) for word in words] == spoken
    order = list(dict.fromkeys(word.speaker for word in words))
    assert order == [f"SPEAKER_{number:02}" for number in range(len(order))]


@given(recordings())
def test_a_segment_ends_only_where_a_sentence_or_a_turn_does(
    recording: tuple[list[Segment], list[Turn]],
) -> None:
    sentences, turns = recording
    ends = {each.text.split()[-1] for each in sentences}
    found = list(attributed(sentences, Turns(turns)))
    for part, following in pairwise(found):
        assert part.text.split()[-1] in ends or part.speaker != following.speaker
