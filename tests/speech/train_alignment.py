"""Train the alignment model: `python -m tests.speech.train_alignment FOLDER --model DIRECTORY`.

It names the letter at each moment of a recording, as the models do with which whisperx
finds the time of each word. Rules of what it is taught:

1. Each letter stands at one frame of 20 ms, all others are blank: whisperx reads a word's
   start from its first letter, and its end from what follows the last one.
2. `|` follows each word, and a full stop comes before it where a pause of half a second or
   more ends a sentence. The last letter is early enough to leave both their frame.
3. Clips start anywhere in the silence before the first word, or just after it began: so
   do the pieces that a voice activity detector cuts.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor
from transformers import Wav2Vec2ForCTC as Network

from tests.speech.corpus import disturbed, kept, many, sentence
from tests.speech.synthesis import RATE, Speech, join
from tests.speech.team import Course, Team
from tests.speech.vocabulary import LANGUAGES, TRAINING_VOICES, WORDS

CLIPS = 4000
COURSE = Course(steps=2200, rate=2e-3, last_rate=2e-5, seed=4)
_BATCH_SECONDS = 30.0  # for each process
_HALF_SECOND = 0.45  # what counts as a pause; units are joined with 0.55 s and more
_LEAST_PAUSE = 0.55

LETTERS = sorted({letter for words in WORDS.values() for word in words for letter in word})
SYMBOLS = ("<pad>", "<unk>", "|", ".", *LETTERS)
_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
_BLANK = _NUMBERS["<pad>"]

# The convolutions: together they see 448 samples and step by 320, so that a frame's number
# tells its time even at the ends of a clip, which whisperx takes for granted.
_KERNELS, _STRIDES, _CHANNELS = (64, 10, 4), (16, 5, 4), (64, 64, 96)
_HOP, _SEEN = 320, 448


@dataclass(slots=True)
class Clip:
    """A recording: int16 samples, and which symbols stand at which times.

    Attributes:
        symbols: numbers of the letters, full stops and `|`, in their order.
        times: seconds; each symbol's, never falling.
        firsts: whether the symbol begins or ends a word: these decide the words' times.
    """

    audio: NDArray[np.int16]
    symbols: NDArray[np.int64]
    times: NDArray[np.float64]
    firsts: NDArray[np.bool_]


def spelled(speech: Speech) -> tuple[list[int], list[float], list[bool]]:
    """Return the symbols of a recording, their times, and which of them bound a word."""
    symbols: list[int] = []
    times: list[float] = []
    firsts: list[bool] = []
    frame = _HOP / RATE
    followers = [*(word.start for word in speech.words[1:]), float("inf")]
    for word, following in zip(speech.words, followers, strict=True):
        symbols += [_NUMBERS[letter] for letter in word.text.lower()]
        times += np.linspace(word.start, word.end - 2 * frame, len(word.text)).tolist()
        firsts += [True] + [False] * (len(word.text) - 1)
        if following - word.end >= _HALF_SECOND:
            symbols.append(_NUMBERS["."])
            times.append(word.end - frame)
            firsts.append(True)
        symbols.append(_NUMBERS["|"])
        times.append(word.end)
        firsts.append(True)
    return symbols, times, firsts


def _seconds(random: np.random.Generator) -> float:
    kind = random.random()
    bounds = (1, 7) if kind < 0.7 else (7, 14) if kind < 0.9 else (14, 30)
    return float(random.uniform(*bounds))


def clip(random: np.random.Generator, _number: int) -> Clip:
    """Compose a clip of up to 30 s in one language, by one voice or by several."""
    language, wanted = str(random.choice(LANGUAGES)), _seconds(random)
    voice, steady = str(random.choice(TRAINING_VOICES)), random.random() < 0.75
    parts = [sentence(random, language, voice)]
    while sum(part.duration for part in parts) < wanted:
        voice = voice if steady else str(random.choice(TRAINING_VOICES))
        parts.append(sentence(random, language, voice))
    around = (part.duration - part.words[-1].end for part in parts[:-1])
    starts = (part.words[0].start for part in parts[1:])
    pauses = [
        _LEAST_PAUSE + float(random.exponential(0.35)) - end - start
        for end, start in zip(around, starts, strict=True)
    ]
    speech = join(parts, pauses)
    symbols, times, firsts = spelled(speech)
    skipped = max(0.0, speech.words[0].start - float(random.uniform(-0.03, 0.35)))
    first = round(skipped * RATE)
    length = min(len(speech.audio) - first, 30 * RATE) // 800 * 800  # quick to transform
    audio = disturbed(random, speech.audio[first : first + length])
    if random.random() < 0.3:
        audio = speech.audio[first : first + length]
    keep = np.array(times) - skipped < length / RATE
    return Clip(
        (audio.clip(-1, 1) * 32767).astype(np.int16),
        np.array(symbols)[keep],
        (np.array(times) - skipped)[keep].clip(0),
        np.array(firsts)[keep],
    )


def _frames(samples: int) -> int:
    return (samples - _SEEN) // _HOP + 1


def _placed(clip: Clip, frames: int) -> NDArray[np.int64]:
    """Return each symbol's frame: the nearest one that is after the symbol before."""
    # Frame i hears _SEEN samples from i * _HOP on; whisperx takes it for the i-th of equal parts.
    wanted = np.round((clip.times * RATE - (_SEEN - _HOP) / 2) / _HOP).astype(int)
    order = np.arange(len(wanted))
    placed = np.maximum.accumulate(wanted - order) + order
    return np.asarray(placed.clip(0, frames - 1), np.int64)


@dataclass(slots=True)
class Batch:
    """Tensors: batch x samples, batch x frames, and the symbols for the CTC loss."""

    audio: Tensor
    targets: Tensor
    weights: Tensor
    symbols: Tensor
    counts: Tensor


def batch(random: np.random.Generator, clips: list[Clip]) -> Batch:
    """Return clips of similar length, neighbours in `clips`, which are sorted by length."""
    first = int(random.integers(len(clips)))
    chosen = [clips[first]]
    while len(chosen[0].audio) * (len(chosen) + 1) < _BATCH_SECONDS * RATE and first > 0:
        first -= 1
        chosen.append(clips[first])
    length = max(len(item.audio) for item in chosen)
    frames = _frames(length)
    audio = np.zeros((len(chosen), length), np.float32)
    targets = np.full((len(chosen), frames), _BLANK)
    weights = np.ones((len(chosen), frames), np.float32)
    for row, item in enumerate(chosen):
        level = 10 ** random.uniform(-0.6, 0.2) / 32768
        audio[row, : len(item.audio)] = item.audio * level
        places = _placed(item, frames)
        targets[row, places] = item.symbols
        weights[row, places[item.firsts]] = 2.0
    audio += random.uniform(0, 0.002) * random.standard_normal(audio.shape, np.float32)
    symbols = np.concatenate([item.symbols for item in chosen])
    counts = np.array([len(item.symbols) for item in chosen])
    return Batch(*(torch.from_numpy(array) for array in (audio, targets, weights, symbols, counts)))


def network() -> Network:
    """Return an untrained network, whose first convolution is a bank of filters."""
    config = Wav2Vec2Config(
        vocab_size=len(SYMBOLS),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=384,
        conv_dim=_CHANNELS,
        conv_kernel=_KERNELS,
        conv_stride=_STRIDES,
        num_feat_extract_layers=len(_KERNELS),
        feat_extract_norm="group",
        num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=8,
        apply_spec_augment=False,
        layerdrop=0.0,
        **dict.fromkeys(
            (
                "hidden_dropout",
                "attention_dropout",
                "activation_dropout",
                "feat_proj_dropout",
                "final_dropout",
            ),
            0.0,
        ),
        pad_token_id=_BLANK,
        bos_token_id=None,
        eos_token_id=None,
    )
    made = Network(config)
    with torch.no_grad():
        first = made.wav2vec2.feature_extractor.conv_layers[0].conv.weight
        first.copy_(_filters(*first.shape[::2])[:, None])
    return made


def _filters(channels: int, width: int) -> Tensor:
    """Return Gabor filters, channels x width, from 100 to 7000 Hz in steps of equal pitch."""
    # With torch's own weights nothing is learnt for a long time.
    lowest, highest = 2595 * np.log10(1 + np.array([100, 7000]) / 700)
    mels = np.linspace(lowest, highest, channels)
    frequencies = 700 * (10 ** (mels / 2595) - 1)
    seconds = (np.arange(width) - width / 2) / RATE
    waves = np.cos(2 * np.pi * frequencies[:, None] * seconds + np.arange(channels)[:, None])
    return torch.from_numpy((waves * np.hanning(width) / np.sqrt(width)).astype(np.float32))


def losses(made: Network, lesson: Batch) -> dict[str, Tensor]:
    """Return the parts of the loss, already weighted."""
    logits = made(lesson.audio).logits
    frames = torch.full_like(lesson.counts, logits.shape[1])
    each = F.cross_entropy(logits.flatten(0, 1), lesson.targets.flatten(), reduction="none")
    logs = logits.log_softmax(-1).transpose(0, 1)
    return {
        "place": (each * lesson.weights.flatten()).mean(),
        "spell": 0.3
        * F.ctc_loss(logs, lesson.symbols, frames, lesson.counts, _BLANK, zero_infinity=True),
    }


def _clips(folder: Path) -> list[Clip]:
    made = kept(folder / "alignment-clips.pkl", partial(many, clip, COURSE.seed, CLIPS))
    return sorted(made, key=lambda item: len(item.audio))


def _work(rank: int, team: Team, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(COURSE.seed)
    clips = _clips(folder)[rank :: team.size]
    made = network().train()
    team.learn(
        made,
        COURSE,
        lambda random: losses(made, batch(random, clips)),
        rank,
        folder / "alignment.pt",
    )


def export(made: Network, folder: Path) -> None:
    """Write `folder`: what transformers' Wav2Vec2ForCTC and Wav2Vec2Processor load."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it comes unreadable for others
    (folder / "vocab.json").write_text(_json(_NUMBERS))
    tokens: dict[str, Any] = {"unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = Wav2Vec2CTCTokenizer(
        folder / "vocab.json", bos_token=None, eos_token=None, do_lower_case=True, **tokens
    )
    tokenizer.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=False).save_pretrained(folder)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the clips and the weights, 1 GB")
    parser.add_argument("--model", type=Path, required=True, help="the directory to write")
    parser.add_argument("--export", action="store_true", help="what was trained before")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if not arguments.export:
        _clips(folder)
        torch.multiprocessing.spawn(_work, (Team(2, network()), folder), 2)
    made = network()
    made.load_state_dict(torch.load(folder / "alignment.pt"))
    export(made.eval(), arguments.model)


if __name__ == "__main__":
    main()
