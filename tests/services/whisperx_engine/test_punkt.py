"""Where sentences end."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import nltk
import pytest
from whisperx_engine import punkt

from ..whisperx import build


@pytest.mark.docker
def test_there_are_sentences_for_every_language_that_whisperx_asks_for() -> None:
    program = """
import nltk
from whisperx.utils import PUNKT_LANGUAGES
from whisperx_engine import punkt

nltk.data.path.clear()
punkt.provide()
for language in PUNKT_LANGUAGES.values():
    nltk.data.load(f"tokenizers/punkt_tab/{language}.pickle")
"""
    ended = subprocess.run(
        ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"]
        + [build(), "python3", "-c", program],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        (
            "english",
            ["Dr. Smith met Mr. J. Bach at 5 p.m. yesterday.", "It cost 3.5 euros.", "Yes!"],
        ),
        ("german", ["Am 3. Mai kam Hr. Maier z.B. nicht.", "Er ging 1999.", "Warum?"]),
        ("french", ["M. Dupont est là.", "Bonjour !", "Oui."]),
        ("russian", ["Это, т.е. тест, стоит 5 руб. утром.", "Да.", "Нет."]),
    ],
)
def test_sentences_end_where_people_end_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, language: str, sentences: list[str]
) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    punkt.provide(tmp_path)
    load: Any = nltk.data.load  # untyped
    tokenizer = load(f"tokenizers/punkt_tab/{language}.pickle")
    text = " ".join(sentences)
    spans = tokenizer.span_tokenize(text)
    assert [text[start:end] for start, end in spans] == sentences
