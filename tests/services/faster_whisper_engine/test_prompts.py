"""Prompt, hotwords and the text so far share one half of the decoder; the words get the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faster_whisper_engine.prompts import fitted, room, shares, sharing
from hypothesis import given
from hypothesis import strategies as st
from speech_service.contract.transcript import Options
from tokenizers import Tokenizer

from ..program import MODEL

TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
LIMIT = room(448)
COUNTS = st.integers(0, 600)


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return ids


class Library:
    """What the library makes of a prompt: it gives half of the positions to each part."""

    max_length = 448
    hf_tokenizer = TOKENIZER

    def get_prompt(
        self, tokenizer: Any, previous: list[int], bare: bool, prefix: str | None, hot: str | None
    ) -> list[int]:
        hotwords = tokenizer.encode(f" {hot.strip()}")[:LIMIT] if hot else []
        return [*hotwords, *previous[-LIMIT:]]


MODEL_CLASS: Any = sharing(Library)


def prompt(previous: list[int], hotwords: str | None = None) -> list[int]:
    made: list[int] = MODEL_CLASS().get_prompt(
        SimpleNamespace(encode=encode), previous, hotwords=hotwords
    )
    return made


@given(COUNTS, COUNTS)
def test_both_are_sure_of_half_and_take_what_the_other_leaves(asked: int, hot: int) -> None:
    before, kept = shares(asked, hot, LIMIT)
    assert before + kept == min(asked + hot, LIMIT)
    assert before >= min(asked, LIMIT // 2)
    assert kept >= min(hot, LIMIT // 2)


@given(COUNTS, COUNTS)
def test_whatever_a_client_asks_for_the_text_has_its_half(asked: int, hot: int) -> None:
    options, warnings = fitted(
        Options(prompt="hello " * asked, hotwords="world " * hot), MODEL_CLASS()
    )
    made = prompt(encode(f" {options.prompt}".rstrip()), options.hotwords)
    assert len(made) <= LIMIT
    assert bool(warnings) == (len(made) < len(encode(" hello" * asked + " world" * hot)))


def test_the_first_hotwords_and_the_newest_of_the_prompt_stay() -> None:
    asked = Options(prompt="hello " * 300 + "garden", hotwords="window " + "world " * 300)
    options, (warning,) = fitted(asked, MODEL_CLASS())
    made = prompt(encode(f" {options.prompt}"), options.hotwords)
    assert TOKENIZER.decode(made).split() == (
        ["window"] + ["world"] * 110 + ["hello"] * 111 + ["garden"]
    )
    assert warning == (
        "prompt and hotwords have room for 223 tokens: of the prompt only the last 112 of 301 "
        "tokens were used, of the hotwords only the first 111 of 301 tokens were used"
    )


@pytest.mark.parametrize("options", [Options(), Options(prompt="hello", hotwords="world " * 200)])
def test_what_fits_is_left_as_it_is(options: Options) -> None:
    assert fitted(options, MODEL_CLASS()) == (options, ())


def test_no_half_word_is_left_at_the_end() -> None:
    options, _ = fitted(Options(hotwords="Eddystone, " * 100), MODEL_CLASS())
    assert options.hotwords is not None
    assert set(options.hotwords.split()) == {"Eddystone,"}


def test_where_words_are_not_set_apart_no_half_character_is_left() -> None:
    options, _ = fitted(Options(hotwords="a " + "日本" * 300), MODEL_CLASS())
    assert options.hotwords is not None
    assert set(options.hotwords) == set(" a日本")
    assert LIMIT - 3 <= len(encode(options.hotwords)) <= LIMIT


def test_hotwords_as_long_as_the_room_leave_nothing_to_the_text_so_far() -> None:
    made = prompt(encode(" hello" * 300), "world " * LIMIT)
    assert made == encode(" world" * LIMIT)
