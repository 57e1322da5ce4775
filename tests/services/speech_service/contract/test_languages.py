"""The languages of Whisper."""

from __future__ import annotations

from speech_service.contract.languages import NAMES, code_of


def test_languages_are_found_by_code_name_and_region() -> None:
    assert len(NAMES) == 100
    assert (code_of("en"), code_of("English"), code_of("pt-BR"), code_of("Haitian Creole")) == (
        "en",
        "en",
        "pt",
        "ht",
    )
    assert code_of("xx") is None
