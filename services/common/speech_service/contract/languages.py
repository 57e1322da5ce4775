"""The languages of Whisper's multilingual models: ISO 639 code and English name.

The order and the set are those of the models' language tokens (openai/whisper, tokenizer.py).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

_TABLE = """
en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese,
pt portuguese, tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian,
id indonesian, hi hindi, fi finnish, vi vietnamese, he hebrew, uk ukrainian, el greek, ms malay,
cs czech, ro romanian, da danish, hu hungarian, ta tamil, no norwegian, th thai, ur urdu,
hr croatian, bg bulgarian, lt lithuanian, la latin, mi maori, ml malayalam, cy welsh, sk slovak,
te telugu, fa persian, lv latvian, bn bengali, sr serbian, az azerbaijani, sl slovenian,
kn kannada, et estonian, mk macedonian, br breton, eu basque, is icelandic, hy armenian, ne nepali,
mn mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili, gl galician, mr marathi, pa punjabi,
si sinhala, km khmer, sn shona, yo yoruba, so somali, af afrikaans, oc occitan, ka georgian,
be belarusian, tg tajik, sd sindhi, gu gujarati, am amharic, yi yiddish, lo lao, uz uzbek,
fo faroese, ht haitian creole, ps pashto, tk turkmen, nn nynorsk, mt maltese, sa sanskrit,
lb luxembourgish, my myanmar, bo tibetan, tl tagalog, mg malagasy, as assamese, tt tatar,
haw hawaiian, ln lingala, ha hausa, ba bashkir, jw javanese, su sundanese, yue cantonese
"""

NAMES: dict[str, str] = {
    code: name for code, _, name in (entry.strip().partition(" ") for entry in _TABLE.split(","))
}
"""Code to English name in lower case."""

_CODES = {name: code for code, name in NAMES.items()}


def code_of(language: str) -> str | None:
    """Return the code of a language given as code or as English name, or None if unknown.

    Case, surrounding space and a region (`en-US`, `pt_BR`) are ignored.
    """
    wanted = language.strip().lower()
    if wanted in _CODES:
        return _CODES[wanted]
    primary = wanted.replace("_", "-").partition("-")[0]
    return primary if primary in NAMES else None


def known_language(value: str) -> str:
    """Return the code of a language, or raise ValueError with the cure."""
    code = code_of(value)
    if code is None:
        raise ValueError(f"unknown language {value[:40]!r}; use an ISO 639-1 code such as 'en'")
    return code


LanguageCode = Annotated[str, AfterValidator(known_language)]
"""A field that names a language; unknown ones are refused with the cure."""
