"""The languages of Whisper, in every way that clients name them."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES
from pydantic import TypeAdapter, ValidationError
from speech_service.contract.languages import NAMES, LanguageCode, code_of

FIELD: TypeAdapter[str | None] = TypeAdapter(LanguageCode)


def test_they_are_those_of_the_models() -> None:
    assert set(NAMES) == set(_LANGUAGE_CODES)
    assert all(code_of(code) == code and code_of(name) == code for code, name in NAMES.items())


SPELLINGS = {
    "en": "EN en-US en_GB en-whatever eng English Language.EN Language.EN_US LanguageCode.ENGLISH "
    "en_US.UTF-8 Englisch anglais inglés английский 英語 en-XX-foo",
    "de": "deu ger de-AT Deutsch German allemand de_DE@euro",
    "nl": "nld dut Nederlands Dutch flemish nl-BE",
    "fr": "fra fre Français French fr-CH",
    "zh": "zho chi cmn zh-Hans zh-Hant-TW zh_CN zh-HK 中文 Mandarin Language.ZH_CN",
    "yue": "zh-yue Cantonese yue-Hant-HK",
    "no": "nb nob nor norsk bokmål nb-NO no-NO",
    "nn": "nno nn-NO nynorsk",
    "tl": "fil fil-PH Tagalog Filipino",
    "he": "iw heb iw-IL עברית",
    "id": "in ind",
    "yi": "ji",
    "jw": "jv jav jw Javanese",
    "ro": "ron rum mo moldavian",
    "sr": "sh hbs sr-Latn",
    "fa": "fas per pes prs Farsi فارسی",
    "ar": "ara arb ar-EG العربية",
    "ms": "msa may zsm",
    "my": "mya bur burmese",
    "ht": "hat haitian",
    "cs": "ces cze čeština",
    "el": "ell gre Ελληνικά",
    "ja": "jpn 日本語",
    "es": "spa castilian es-419 Español",
    "pa": "panjabi pan",
    "lb": "ltz letzeburgesch",
}


@pytest.mark.parametrize(
    ("spelling", "code"),
    [(word, code) for code, words in SPELLINGS.items() for word in words.split()]
    + [
        ("Haitian Creole", "ht"),
        ("haitian_creole", "ht"),
        ("Chinese (Simplified)", "zh"),
        ("Brazilian Portuguese", "pt"),
        (" tiếng Việt\n", "vi"),
    ],
)
def test_a_language_is_known_by_code_locale_and_name(spelling: str, code: str) -> None:
    assert FIELD.validate_python(spelling) == code


@pytest.mark.parametrize(
    "nothing",
    [None, "", " ", "auto", "AUTO", "Auto-Detect", "auto_detect", "detect", "multi", "und", "mul"]
    + ["None", "null", "undefined", "unknown"],
)
def test_no_language_has_many_names(nothing: str | None) -> None:
    assert FIELD.validate_python(nothing) is None


@pytest.mark.parametrize(
    "other",
    ["klingon", "tlh", "xx", "xx-YY", "e", "en,de", "english/german", "n" * 5000, "ga", "1", 7],
)
def test_what_is_no_language_of_the_models_is_refused(other: object) -> None:
    with pytest.raises(ValidationError, match="use an ISO 639-1 code such as 'en'"):
        FIELD.validate_python(other)
