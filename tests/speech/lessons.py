"""What the network is taught: clips composed from units, and the tokens to write for them.

Rules, all of them what Whisper's own engines expect:
1. Pauses of half a second and more end a sentence; a sentence is a segment.
2. With timestamps each segment stands between its start and its end. Decoders allow a
   first start of at most one second, so later ones are taught as one second.
3. A segment that the window cuts off is announced by its start alone: decoders then
   begin their next window there.
4. Audio without words gives no text, and `<|nospeech|>` where the language is asked.
5. The position that predicts a word looks at the frames of that word: word times are
   read from there. Full stops and the end look at the silence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.speech.corpus import MEL_RATE, Unit
from tests.speech.network import FIRST_TIME, FRAMES, MELS, NO_WORD
from tests.speech.vocabulary import LANGUAGES, WORDS, token_id, tokenizer

FRAME_RATE = 50  # the encoder's, per second
WINDOW_SECONDS = 30.0
_IGNORED = -100
_RANGE = 2.0  # log-mels lie within this much of their maximum


def _id(name: str) -> int:
    return token_id(f"<|{name}|>")


EOT, SOT, PREVIOUS = _id("endoftext"), _id("startoftranscript"), _id("startofprev")
NO_SPEECH, NO_TIMES = _id("nospeech"), _id("notimestamps")
FULL_STOP = token_id(".")
_LANGUAGE_IDS = {language: _id(language) for language in LANGUAGES}
_WORD_IDS = {
    (language, index, capital): tokenizer()
    .encode(" " + (word.capitalize() if capital else word), add_special_tokens=False)
    .ids[0]
    for language, words in WORDS.items()
    for index, word in enumerate(words)
    for capital in (False, True)
}


@dataclass(slots=True)
class Clip:
    """A recording of any length, as log-mels.

    Attributes:
        mel: float32, 80 x frames of 10 ms.
        language: of all its words; empty without words.
        sentences: for each its word indices, and their starts and ends in seconds.
    """

    mel: NDArray[np.float32]
    language: str
    sentences: list[tuple[tuple[int, ...], NDArray[np.float32]]]


@dataclass(slots=True)
class Lesson:
    """What to write for a clip.

    Attributes:
        tokens: the decoder's input.
        targets: the next token at each place, or -100 where it is not taught.
        looks: (place, start, end) in seconds: where to look while predicting there.
    """

    tokens: list[int]
    targets: list[int]
    looks: list[tuple[int, float, float]]


class Shelf:
    """Units, found by language and voice."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.by_language: dict[str, list[Unit]] = defaultdict(list)
        self.by_voice: dict[tuple[str, str], list[Unit]] = defaultdict(list)
        for unit in units:
            self.by_language[unit.language].append(unit)
            self.by_voice[unit.language, unit.voice].append(unit)

    def clip(self, random: np.random.Generator, seconds: float) -> Clip:
        """Compose a clip of about `seconds`; one in sixteen has no words."""
        if random.random() < 1 / 16:
            return self._wordless(random, seconds)
        language = LANGUAGES[random.integers(len(LANGUAGES))]
        first = _one(random, self.by_language[language], seconds)
        pool = self.by_voice[language, first.voice]
        if random.random() < 0.25:
            pool = self.by_language[language]
        return _join(random, language, first, pool, seconds)

    def _wordless(self, random: np.random.Generator, seconds: float) -> Clip:
        parts = [_one(random, self.by_language[""], seconds).mel]
        while sum(part.shape[1] for part in parts) < seconds * MEL_RATE and random.random() < 0.7:
            parts.append(_one(random, self.by_language[""], seconds).mel)
        return Clip(_levelled(np.concatenate(parts, 1)[:, : FRAMES * 2]), "", [])


def _one(random: np.random.Generator, units: Sequence[Unit], seconds: float) -> Unit:
    """Return a unit of at most `seconds`, if a few draws find one."""
    drawn = [units[index] for index in random.integers(len(units), size=6)]
    fitting = (unit for unit in drawn if unit.mel.shape[1] <= seconds * MEL_RATE)
    return next(fitting, min(drawn, key=lambda unit: unit.mel.shape[1]))


def _levelled(mel: NDArray[np.floating]) -> NDArray[np.float32]:
    mel = mel.astype(np.float32)
    return np.maximum(mel, mel.max() - _RANGE)


def _still(random: np.random.Generator, unit: Unit, frames: int) -> NDArray[np.float16]:
    """Return `frames` of the silence, or noise, in which `unit` was spoken."""
    return unit.mel[:, random.integers(1, max(unit.quiet, 2), max(frames, 0))]


def _join(
    random: np.random.Generator, language: str, first: Unit, pool: Sequence[Unit], seconds: float
) -> Clip:
    lead = random.random()
    mels: list[NDArray[np.float16]] = []
    shift = 0.0  # of the next unit's start
    if lead < 0.3:  # decoders begin a window right at the start of a segment
        skip = max(0, round((first.times[0, 0] + random.uniform(-0.06, 0.02)) * MEL_RATE))
        mels.append(first.mel[:, skip:])
        shift = -skip / MEL_RATE
    else:
        more = int(random.uniform(0, 3.0 if lead > 0.85 else 0.5) * MEL_RATE)
        mels += [_still(random, first, more), first.mel]
        shift = more / MEL_RATE
    sentences = [(first.words, first.times + shift)]
    length = sum(mel.shape[1] for mel in mels)
    while length < seconds * MEL_RATE:
        unit = _one(random, pool, seconds - length / MEL_RATE)
        pause = (
            0.55
            + random.exponential(0.35)
            + (random.uniform(1, 4) if random.random() < 0.06 else 0)
        )
        there = length / MEL_RATE - float(sentences[-1][1][-1, 1]) + float(unit.times[0, 0])
        still = _still(random, unit, round((pause - there) * MEL_RATE))
        sentences.append((unit.words, unit.times + (length + still.shape[1]) / MEL_RATE))
        mels += [still, unit.mel]
        length += still.shape[1] + unit.mel.shape[1]
    mel = np.concatenate(mels, 1)
    end = float(sentences[-1][1][-1, 1])
    if random.random() < 0.25:
        mel = mel[:, : round((end + random.uniform(0.0, 0.08)) * MEL_RATE)]
    return Clip(_levelled(mel[:, : FRAMES * 2]), language, sentences)


def _text(language: str, words: Sequence[int]) -> list[int]:
    return [_WORD_IDS[language, word, place == 0] for place, word in enumerate(words)] + [FULL_STOP]


def _time(seconds: float) -> int:
    return FIRST_TIME + min(FRAMES, round(seconds * FRAME_RATE))


def _prompt(random: np.random.Generator, language: str, mean: float) -> list[int]:
    """Return text that may have been written before: decoders hand on their times, too."""
    length = min(222, int(random.exponential(mean)) + 2)
    times = random.random() < 0.6
    tokens: list[int] = []
    if random.random() < 0.15:
        tokens = [int(token) for token in random.integers(0, 256, random.integers(1, 20))]
    moment = random.uniform(0, 2)
    while len(tokens) < length:
        words = random.integers(0, len(WORDS[language]), random.integers(1, 8))
        end = moment + len(words) * random.uniform(0.35, 0.8)
        sentence = _text(language, [int(word) for word in words])
        tokens += [_time(moment), *sentence, _time(end)] if times else sentence
        moment = 0.0 if end > 25 else end + random.uniform(0.5, 1)
    return [PREVIOUS, *tokens[-length:]]


def lesson(random: np.random.Generator, clip: Clip, offset: float, prompt_length: float) -> Lesson:
    """Return what to write for `clip`.

    Args:
        offset: seconds of the window before the clip.
        prompt_length: mean number of tokens of previous text; 0 for none.
    """
    language = clip.language or LANGUAGES[random.integers(len(LANGUAGES))]
    translate = random.random() < (0.1 if language == "en" else 0.3)
    spelled = "en" if translate else language
    times = random.random() < 0.5
    prompt = _prompt(random, spelled, prompt_length) if prompt_length else []
    start = [SOT, _LANGUAGE_IDS[language], _id("translate" if translate else "transcribe")]
    tokens = [*prompt, *start] if times else [*prompt, *start, NO_TIMES]
    taught = [False] * len(tokens)
    taught[len(prompt) + 1] = True
    looks: list[tuple[int, float, float]] = []

    def write(token: int, look_start: float, look_end: float) -> None:
        if look_end - look_start >= 0.04:
            looks.append((len(tokens) - 1, look_start, look_end))
        tokens.append(token)
        taught.append(True)

    length = clip.mel.shape[1] / MEL_RATE
    fits = [i for i, (_, spans) in enumerate(clip.sentences) if spans[-1, 1] < length + 0.03]
    for number in fits:
        words, spans = clip.sentences[number]
        begin, end = float(spans[0, 0]), float(spans[-1, 1])
        following = (
            float(clip.sentences[number + 1][1][0, 0])
            if number + 1 < len(clip.sentences)
            else end + 1
        )
        if times:
            shown = begin if number or offset else min(begin, 1.0)
            write(_time(shown + offset), begin - 0.04, begin + 0.06)
        for token, (word_start, word_end) in zip(_text(spelled, words), spans, strict=False):
            write(token, float(word_start), float(word_end))
        rest = (end + 0.04, min(end + 0.6, following - 0.04, length + 0.3))
        write(FULL_STOP, *rest)
        if times:
            write(_time(end + offset), end - 0.06, end + 0.04)
    cut = clip.sentences[len(fits)] if len(fits) < len(clip.sentences) else None
    if cut and cut[1][0, 0] < length - 0.1:
        words, spans = cut
        begin = float(spans[0, 0])
        if times:
            write(_time(begin + offset), begin - 0.04, begin + 0.06)
        else:
            for token, (word_start, word_end) in zip(_text(spelled, words), spans, strict=False):
                if word_end <= length:
                    write(token, float(word_start), float(word_end))
    elif times and not fits:
        write(FIRST_TIME if not offset else _time(offset), 0, 0)
    last = float(clip.sentences[fits[-1]][1][-1, 1]) if fits else 0.0
    write(EOT, last + 0.04, last + 0.6 if len(fits) == len(clip.sentences) else 0.0)
    targets = [t if known else _IGNORED for t, known in zip(tokens[1:], taught[1:], strict=True)]
    if not clip.language:
        targets[len(prompt)] = NO_SPEECH
    return Lesson(tokens[:-1], targets, looks)


@dataclass(slots=True)
class Batch:
    """Tensors of several lessons; see `Lesson` and `Network`.

    Attributes:
        mel: batch x 80 x frames of 10 ms; first: the position of each one's first frame.
        heard: batch x frames of 20 ms x 3: classes of the word there and the two before.
        looks: batch x text x frames: each row sums to 1, or to 0 where nothing is taught.
    """

    mel: Tensor
    first: Tensor
    tokens: Tensor
    targets: Tensor
    heard: Tensor
    looks: Tensor


def batch(
    random: np.random.Generator, shelf: Shelf, size: int, seconds: float, whole: bool
) -> Batch:
    """Compose `size` lessons on clips of about `seconds`, which saves padding.

    Args:
        whole: pad to the 30 s that decoders always hand over; otherwise the clips
            are as long as they are, at random places in the window, which is quick.
    """
    clips = [shelf.clip(random, seconds * random.uniform(0.7, 1)) for _ in range(size)]
    longest = max(clip.mel.shape[1] for clip in clips)
    frames = FRAMES if whole else min(FRAMES, longest // 2 + int(random.integers(1, 60)))
    room = FRAMES - frames
    firsts = [
        int(random.integers(0, room + 1)) if room and random.random() < 0.6 else 0 for _ in clips
    ]
    # All or none: one long prompt would pad all others.
    prompted = random.random() < (0.5 if whole else 0.3)
    prompt_length = (90 if whole else 20) * random.random() if prompted else 0.0
    lessons = [
        lesson(random, clip, first / FRAME_RATE, prompt_length)
        for clip, first in zip(clips, firsts, strict=True)
    ]
    width = max(len(item.tokens) for item in lessons)
    mel = np.empty((size, MELS, frames * 2), np.float32)
    heard = np.full((size, frames, 3), NO_WORD)
    tokens, targets = np.full((size, width), EOT), np.full((size, width), _IGNORED)
    looks = np.zeros((size, width, frames), np.float32)
    for row, (clip, item) in enumerate(zip(clips, lessons, strict=True)):
        mel[row] = _padded(random, clip.mel, frames * 2)
        tokens[row, : len(item.tokens)] = item.tokens
        targets[row, : len(item.targets)] = item.targets
        _mark_words(heard[row], clip)
        for place, start, end in item.looks:
            begin = min(max(0, round(start * FRAME_RATE)), frames - 1)
            stop = min(max(begin + 1, round(end * FRAME_RATE)), frames)
            looks[row, place, begin:stop] = 1 / (stop - begin)
    arrays = (mel, np.array(firsts), tokens, targets, heard, looks)
    return Batch(*(torch.from_numpy(array) for array in arrays))


def _padded(
    random: np.random.Generator, mel: NDArray[np.float32], frames: int
) -> NDArray[np.float32]:
    """Return `mel` with the padding of one engine or the other, and slightly disturbed."""
    kind = random.random()
    top = float(mel.max())
    if random.random() < 0.5:
        mel = mel + random.uniform(0, 0.04) * random.standard_normal(mel.shape, np.float32)
    if random.random() < 0.2:
        band = random.integers(0, MELS - 8)
        mel = mel.copy()
        mel[band : band + random.integers(2, 8)] = mel.min()
    padded = np.full((MELS, frames), 0.0 if kind < 0.6 else top - _RANGE, np.float32)
    padded[:, : min(mel.shape[1], frames)] = mel[:, :frames]
    return padded + (np.float32(random.uniform(-0.05, 0.05)) if random.random() < 0.3 else 0)


def _mark_words(heard: NDArray[np.int64], clip: Clip) -> None:
    previous = [NO_WORD, NO_WORD]
    base = LANGUAGES.index(clip.language) * len(WORDS["en"]) if clip.language else 0
    for words, spans in clip.sentences:
        for word, (start, end) in zip(words, spans, strict=True):
            first, last = round(float(start) * FRAME_RATE), round(float(end) * FRAME_RATE)
            heard[max(first, 0) : max(last, 0), 0] = base + word
            previous = [base + word, previous[0]]
            heard[max(last, 0) :, 1:] = previous
