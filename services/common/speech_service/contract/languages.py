"""The languages of Whisper's multilingual models, and how clients name them.

The order and the set are those of the models' language tokens (openai/whisper, tokenizer.py). What
is neither code nor name of the models is looked up by langcodes (Unicode CLDR, IANA's registry).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

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

DETECTION = frozenset(
    {
        *("", "auto", "automatic", "autodetect", "auto-detect", "detect", "any", "default"),
        *("multi", "multilingual", "none", "null", "nil", "undefined", "unknown", "undetermined"),
        # ISO 639-2: undetermined, several, one without a code.
        *("und", "mul", "mis"),
    }
)
"""How clients write that they name no language."""

_MOST_CHARACTERS = 80
_NEAR = 4
"""Distance (Unicode TR 35, language matching) up to which speakers take one for the other."""


def code_of(language: str) -> str | None:
    """Return the code of a language as a client may name it, or None if unknown.

    That is a code of ISO 639-1, 639-2 or 639-3, also one of their older ones, a locale (`pt_BR`,
    `de_DE.UTF-8`), a name in any language, or any of these as a member of an enumeration
    (`Language.EN`). Case and surrounding space are ignored.
    """
    wanted = language.strip().casefold()
    if wanted in NAMES or wanted in _CODES:
        return _CODES.get(wanted, wanted)
    if len(wanted) > _MOST_CHARACTERS or re.search("[,;/|&+]", wanted):
        # A list of languages is no language, though a name may have others behind it.
        return None
    wanted = re.sub(r"^\w*lang\w*\.", "", wanted)
    tag = re.split("[.@]", wanted)[0].replace("_", "-")
    return _by_tag(tag) or _by_tag(tag.partition("-")[0]) or _by_name(wanted)


def _by_tag(tag: str) -> str | None:
    """Return the code of a language tag (RFC 5646), or None."""
    import langcodes
    from langcodes.tag_parser import LanguageTagError

    try:
        language = langcodes.get(langcodes.standardize_tag(tag, macro=True)).language
    except LanguageTagError:
        return None
    return langcodes.closest_supported_match(language or "und", list(NAMES), max_distance=_NEAR)


def _by_name(name: str) -> str | None:
    import langcodes

    try:
        return _by_tag(langcodes.find(name.replace("_", " ")).to_tag())
    except LookupError:
        return None


def known_language(value: object) -> str | None:
    """Return the code of a language, None for detection; ValueError, with the cure, for others."""
    if value is None:
        return None
    written = str(value).strip()
    if written.casefold().replace("_", "-") in DETECTION:
        return None
    code = code_of(written)
    if code is None:
        raise ValueError(f"unknown language {written[:40]!r}; use an ISO 639-1 code such as 'en'")
    return code


LanguageCode = Annotated[str | None, BeforeValidator(known_language)]
"""A field that names a language, or none; unknown ones are refused with the cure."""
