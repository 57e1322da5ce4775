"""What the test model can hear and write: its words, its tokens, its voices.

Rules:
1. A word of one language translates to the word at the same place in the others.
2. Every word is one token, once in lower case and once capitalised, each with its
   leading space; a sentence starts with a capital and ends with a full stop.
3. Any other text still encodes, byte by byte, as with every byte-level BPE.
"""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_EN = """zero one two three four five six seven eight nine
         hello world open garden window thanks"""
_FR = """zéro un deux trois quatre cinq six sept huit neuf
         bonjour monde ouvrez jardin fenêtre merci"""
_RU = """ноль один два три четыре пять шесть семь восемь девять
         привет мир откройте сад окно спасибо"""
WORDS = {name: tuple(words.split()) for name, words in {"en": _EN, "fr": _FR, "ru": _RU}.items()}
LANGUAGES = tuple(WORDS)

# espeak-ng's voice for each language; the first is the usual one.
ACCENTS: dict[str, tuple[str, ...]] = {
    "en": ("en-us", "en", "en-gb-x-rp"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "ru": ("ru",),
}
# Whole families are held out: a sibling in the training set would make the test easy.
TEST_VOICES = ("f4", "m5", "Andy", "linda", "Alicia", "max")
_OTHER_VOICES = """m1 m2 m3 m4 m6 m7 m8 f1 f2 f3 f5 Alex Andrea Annie Denis Diogo Gene Gene2
    Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Tweaky adam anika antonio aunty belinda
    benjamin boris caleb david ed edward edward2 grandma grandpa gustave iven iven2 iven3 iven4
    john kaukovalta marcelo michel miguel norbert pablo paul pedro quincy rob robert sandro shelby
    steph steph2 steph3 travis victor zac"""
TRAINING_VOICES = tuple(_OTHER_VOICES.split())

# Whisper's languages in the order of its tokens.
_LANGUAGE_CODES = """en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro
    da hu ta no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk
    sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl
    mg as tt haw ln ha ba jw su"""
_TIMESTAMPS = 1501  # 0.00 to 30.00 seconds in steps of 20 ms


def translate(text: str, source: str) -> str:
    """Return `text`, made of the words of `source`, in English."""
    english = dict(zip(WORDS[source], WORDS["en"], strict=True))
    sentences = (
        " ".join(english[word.lower()] for word in sentence.split())
        for sentence in text.split(".")
        if sentence.strip()
    )
    return " ".join(f"{sentence.capitalize()}." for sentence in sentences)


def _pieces(text: str) -> list[str]:
    """Return the characters that byte-level BPE writes for the UTF-8 bytes of `text`."""
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return list("".join(piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)))


@cache
def tokenizer() -> Tokenizer:
    """Return the tokenizer, laid out as Whisper's: text, then special tokens, then times."""
    vocabulary = {
        piece: index for index, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    merges: list[tuple[str, str]] = []
    for word in (word for words in WORDS.values() for word in words):
        for spelling in (word, word.capitalize()):
            first, *rest = _pieces(f" {spelling}")
            for piece in rest:
                if first + piece not in vocabulary:
                    vocabulary[first + piece] = len(vocabulary)
                    merges.append((first, piece))
                first += piece
    # CTranslate2 calls a Whisper multilingual if the empty string is one of its tokens.
    vocabulary[""] = len(vocabulary)
    built = Tokenizer(models.BPE(vocabulary, merges))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    names = ["endoftext", "startoftranscript", *_LANGUAGE_CODES.split()]
    names += ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    built.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    times = [f"<|{index * 0.02:.2f}|>" for index in range(_TIMESTAMPS)]
    built.add_tokens([AddedToken(time, special=False) for time in times])
    return built


def token_id(token: str) -> int:
    """Return the number of `token`.

    Raises:
        KeyError: there is no such token.
    """
    number = tokenizer().token_to_id(token)
    if number is None:
        raise KeyError(token)
    return number
