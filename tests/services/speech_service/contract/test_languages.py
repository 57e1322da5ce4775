"""The languages of Whisper."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError
from speech_service.contract.languages import NAMES, LanguageCode, code_of


def test_languages_are_found_by_code_name_and_region() -> None:
    assert len(NAMES) == 100
    assert (code_of("en"), code_of("English"), code_of("pt-BR"), code_of("Haitian Creole")) == (
        "en",
        "en",
        "pt",
        "ht",
    )
    assert code_of("xx") is None


def test_a_field_takes_any_spelling_and_refuses_what_is_no_language() -> None:
    field = TypeAdapter(LanguageCode)
    assert field.validate_python(" German ") == "de"
    with pytest.raises(ValidationError, match="use an ISO 639-1 code such as 'en'"):
        field.validate_python("klingon")
