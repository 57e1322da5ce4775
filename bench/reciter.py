"""A Whisper of real size without real weights: it computes as much, and always says the same.

    python -m bench.reciter FOLDER [--size small] [--tokens 100]

What a request costs depends on a model's shape and on how much it says, not on what. The weights
here are random, but each position of the text points at the token to be written there, so strongly
that nothing else matters: every window of 30 s becomes the same `--tokens` words between two
timestamps, in English, without a fallback. Audio should fill one window, since positions move with
the text before it.

Needs `pip install services/faster-whisper`, neither torch nor a download.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs.model_spec import visit_spec
from ctranslate2.specs.whisper_spec import WhisperSpec
from faster_whisper.tokenizer import _LANGUAGE_CODES
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

MELS, FRAMES, POSITIONS, TIMES = 80, 1500, 448, 1501
TEXT_TOKENS = 50_257
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SPREAD = 0.02
"""Standard deviation of the random weights."""
_POINTING = 8.0
"""How far a position outweighs everything else that is added up on the way to the last layer."""
_LISTENING = 0.05
"""How well a token hears its position: enough to be next to certain."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One of OpenAI's sizes; encoder and decoder have the same."""

    width: int
    layers: int
    heads: int


SHAPES = {"tiny": Shape(384, 4, 6), "base": Shape(512, 6, 8), "small": Shape(768, 12, 12)}


def tokenizer() -> Tokenizer:
    """Return a tokenizer laid out as Whisper's: text, then special tokens, then times."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    for number in range(len(pieces), TEXT_TOKENS - 1):
        letters = (_LETTERS[number // 26**place % 26] for place in range(4))
        pieces.append("Ġ" + "".join(letters))
    pieces.append("")  # CTranslate2 takes it as the mark of a multilingual model
    built = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    names = ["endoftext", "startoftranscript", *_LANGUAGE_CODES[:99]]
    names += ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    built.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    times = [f"<|{index * 0.02:.2f}|>" for index in range(TIMES)]
    built.add_tokens([AddedToken(time, special=False) for time in times])
    return built


def recited(numbers: dict[str, int], tokens: int, random: np.random.Generator) -> list[int]:
    """Return what is written after each position of a text without anything before it."""
    words = random.choice(np.arange(1000, TEXT_TOKENS - 1), tokens - 2, replace=False)
    begin = [numbers[name] for name in ("<|en|>", "<|transcribe|>", "<|0.00|>")]
    end = [numbers[name] for name in ("<|28.00|>", "<|endoftext|>")]
    return [*begin, *(int(word) for word in words), *end]


def build(folder: Path, size: str = "small", tokens: int = 100) -> None:
    """Write a model as a CTranslate2 directory of int8 weights.

    Args:
        size: of `SHAPES`.
        tokens: written per window, the two timestamps included; 3 to 440.
    """
    shape, known = SHAPES[size], tokenizer()
    numbers = known.get_vocab()
    spec = _specification(shape, numbers, tokens)
    spec.register_vocabulary(sorted(numbers, key=lambda token: numbers[token]))
    first = numbers["<|en|>"]
    spec.config.lang_ids = list(range(first, first + 99))
    spec.config.suppress_ids = spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = [[shape.layers - 1, head] for head in range(shape.heads)]
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    known.save(str(folder / "tokenizer.json"), pretty=False)
    features = {"feature_size": MELS, "hop_length": 160, "n_fft": 400, "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(features | {"chunk_length": 30}))


def _specification(shape: Shape, numbers: dict[str, int], tokens: int) -> Any:
    """Return a Whisper of random weights whose positions point at the text."""
    random = np.random.default_rng(0)

    def weights(*dimensions: int) -> NDArray[np.float32]:
        return random.standard_normal(dimensions, np.float32) * np.float32(_SPREAD)

    # An Any: the library's attributes are None until they hold weights.
    make: Any = WhisperSpec
    spec = make(shape.layers, shape.heads, shape.layers, shape.heads)
    walk: Any = visit_spec
    walk(spec, lambda layer, name, value: _fill(layer, name, value, weights, shape.width))
    spec.encoder.conv1.weight = weights(shape.width, MELS, 3)
    spec.encoder.conv2.weight = weights(shape.width, shape.width, 3)
    spec.encoder.position_encodings.encodings = weights(FRAMES, shape.width)
    directions = random.standard_normal((POSITIONS, shape.width), np.float32)
    spec.decoder.position_encodings.encodings = directions * np.float32(_POINTING)
    spec.decoder.embeddings.weight = weights(len(numbers), shape.width)
    projection = weights(len(numbers), shape.width)
    for direction, token in zip(directions, recited(numbers, tokens, random), strict=False):
        projection[token] = direction * np.float32(_LISTENING)
    spec.decoder.projection.weight = projection
    return spec


def _fill(layer: Any, name: str, value: object, weights: Any, width: int) -> None:
    """Give a layer of the specification its weights, by the name it is found under."""
    place, _, attribute = name.rpartition("/")
    if attribute == "gamma":
        layer.gamma = np.ones(width, np.float32)
    elif attribute == "beta":
        layer.beta = np.zeros(width, np.float32)
    elif attribute == "weight" and value is None and "linear_" in place:
        rows, columns = _linear(place)
        layer.weight = weights(rows * width, columns * width)
        layer.bias = np.zeros(rows * width, np.float32)


def _linear(place: str) -> tuple[int, int]:
    """Return rows and columns of a linear layer, in widths of the model."""
    match place.rsplit("/", 2)[1:]:
        case ["self_attention", "linear_0"]:
            return 3, 1
        case ["attention", "linear_1"]:
            return 2, 1
        case ["ffn", "linear_0"]:
            return 4, 1
        case ["ffn", "linear_1"]:
            return 1, 4
        case _:
            return 1, 1


def main() -> None:
    """Write one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="small")
    parser.add_argument("--tokens", type=int, default=100)
    arguments = parser.parse_args()
    build(arguments.folder, arguments.size, arguments.tokens)


if __name__ == "__main__":
    main()
