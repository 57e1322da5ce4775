"""Dialogues tell the truth about themselves, and the committed models are complete."""

from __future__ import annotations

import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.speech.dialogues import DIALOGUES, LEAD, Cast, dialogue
from tests.speech.pipeline import DIARIZATION, DIMENSION, write_settings
from tests.speech.synthesis import RATE
from tests.speech.vocabulary import TEST_VOICES, WORDS

ALIGNMENT = Path(__file__).parent / "alignment"


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


@pytest.mark.parametrize("cast", DIALOGUES, ids=str)
def test_a_dialogue_is_loud_in_its_words_and_silent_between_its_turns(cast: Cast) -> None:
    made = dialogue(cast)
    assert 20 <= made.speech.duration <= 24
    audio = np.abs(made.speech.audio)
    for word in (word for turn in made.turns for word in turn.words):
        assert audio[round(word.start * RATE) : round(word.end * RATE)].max() > 0.05
    bounds = [0.0, *(t for turn in made.turns for t in (turn.start, turn.end)), 1e9]
    for silent, heard in zip(bounds[::2], bounds[1::2], strict=True):
        assert not audio[round(silent * RATE) : int(min(heard, 99) * RATE)].any()


@pytest.mark.parametrize("cast", DIALOGUES, ids=str)
def test_the_voices_of_a_dialogue_take_turns_and_neither_was_trained_on(cast: Cast) -> None:
    made = dialogue(cast)
    assert set(cast.voices) <= set(TEST_VOICES)
    assert len(set(cast.voices)) == 2
    assert [turn.voice for turn in made.turns] == [
        cast.voices[i % 2] for i in range(len(made.turns))
    ]
    assert made.turns[0].start == pytest.approx(LEAD, abs=0.05)
    assert all(before.end + 0.5 < after.start for before, after in pairwise(made.turns))


def test_the_text_of_a_dialogue_is_that_of_its_words() -> None:
    made = dialogue(DIALOGUES[0])
    assert made.text.replace(".", "") == made.speech.text
    assert [turn.text for turn in made.turns] == [f"{t}." for t in made.text[:-1].split(". ")]
    assert {word.lower() for word in made.speech.text.split()} <= set(WORDS[made.language])


def test_the_same_cast_gives_the_same_dialogue_and_another_seed_another() -> None:
    cast = Cast(("f4", "m5"), 1, "ru")
    first = dialogue(cast)
    other = dialogue(Cast(("f4", "m5"), 2, "ru"))
    dialogue.cache_clear()
    assert np.array_equal(first.speech.audio, dialogue(cast).speech.audio)
    assert first.text != other.text


def test_the_diarization_model_holds_all_that_its_settings_name() -> None:
    settings = yaml.safe_load((DIARIZATION / "config.yaml").read_text())["pipeline"]["params"]
    named = {value for value in settings.values() if str(value).startswith("$model/")}
    assert named == {"$model/segmentation", "$model/embedding", "$model/plda"}
    for network in ("segmentation", "embedding"):
        assert zipfile.is_zipfile(DIARIZATION / network / "pytorch_model.bin")
    with np.load(DIARIZATION / "plda" / "xvec_transform.npz") as transform:
        assert transform["lda"].shape == (DIMENSION, DIMENSION)


def test_the_committed_settings_are_those_of_the_script(tmp_path: Path) -> None:
    write_settings(tmp_path)
    written = (tmp_path / "config.yaml").read_text()
    assert (DIARIZATION / "config.yaml").read_text() == written


def test_the_alignment_model_names_every_letter_and_has_a_blank() -> None:
    numbers = read(ALIGNMENT / "vocab.json")
    letters = {letter for words in WORDS.values() for word in words for letter in word}
    assert letters | {"|", ".", "<pad>"} <= set(numbers)
    settings = read(ALIGNMENT / "config.json")
    assert settings["vocab_size"] == len(numbers) == max(numbers.values()) + 1
    assert settings["pad_token_id"] == numbers["<pad>"]


def test_the_models_are_small_enough_to_be_committed() -> None:
    for folder, limit in ((ALIGNMENT, 2_000_000), (DIARIZATION, 500_000)):
        assert sum(file.stat().st_size for file in folder.rglob("*")) < limit
