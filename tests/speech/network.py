"""Whisper in plain torch, with the names of transformers' parameters, and small.

Beside what Whisper computes, the network returns what training supervises: which word
each frame of audio belongs to, and where the decoder looks while it writes a word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.speech.vocabulary import LANGUAGES, WORDS, token_id, tokenizer

FRAMES, TEXT_POSITIONS, MELS = 1500, 448, 80
FIRST_TIME = token_id("<|0.00|>")
# What a frame may be: one of all languages' words, or none.
CLASSES = sum(len(words) for words in WORDS.values()) + 1
NO_WORD = CLASSES - 1


@dataclass(frozen=True, slots=True)
class Size:
    """The shape of a network; `timed` counts the last layer's heads that follow the words."""

    width: int = 112
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    timed: int = 2


def waves(positions: int, width: int, longest: float, shortest: float = 4.0) -> Tensor:
    """Return positions x width: sine and cosine pairs, wavelengths in geometric steps."""
    steps = torch.linspace(0, 1, width // 2)
    frequencies = 2 * math.pi / (shortest * (longest / shortest) ** steps)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Attention(nn.Module):
    """Whisper's attention: the keys have no bias."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads, width = size.heads, size.width
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))

    def look(self, offsets: list[float], longest: float) -> None:
        """Let each head begin by attending at a fixed distance, in positions.

        Nothing is learnt for a long time if the heads have to discover positions first.
        """
        width = self.k_proj.in_features
        steps = torch.linspace(0, 1, width // 2)
        frequencies = 2 * math.pi / (4.0 * (longest / 4.0) ** steps)
        query, key = torch.zeros(width, width), torch.zeros(width, width)
        row = 0
        for head, offset in enumerate(offsets):
            for pair in range(head, width // 2, self.heads):
                turn = frequencies[pair] * offset
                sine, cosine = 2 * pair, 2 * pair + 1
                key[row, sine] = key[row + 1, cosine] = 1.2
                query[row, sine], query[row, cosine] = 1.2 * turn.cos(), 1.2 * turn.sin()
                query[row + 1, cosine], query[row + 1, sine] = 1.2 * turn.cos(), -1.2 * turn.sin()
                row += 2
        with torch.no_grad():
            self.q_proj.weight.mul_(0.3).add_(query)
            self.k_proj.weight.mul_(0.3).add_(key)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, x: Tensor, source: Tensor | None = None, causal: bool = False, watched: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return the output, and the logarithms of the first `watched` heads' weights."""
        source = x if source is None else source
        query, key, value = (
            self._split(projection(y))
            for projection, y in ((self.q_proj, x), (self.k_proj, source), (self.v_proj, source))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        scores = (
            query[:, :watched] @ key[:, :watched].transpose(-1, -2) / math.sqrt(query.shape[-1])
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), scores.log_softmax(-1)


class Layer(nn.Module):
    """One layer of the encoder, or of the decoder if it also attends to the audio."""

    def __init__(self, size: Size, decodes: bool) -> None:
        super().__init__()
        width = size.width
        self.self_attn = Attention(size)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        if decodes:
            self.encoder_attn = Attention(size)
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, audio: Tensor | None = None, watched: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return the output, and where the first `watched` heads looked in the audio."""
        mixed, logs = self.self_attn(self.self_attn_layer_norm(x), causal=audio is not None)
        x = x + mixed
        if audio is not None:
            seen, logs = self.encoder_attn(self.encoder_attn_layer_norm(x), audio, watched=watched)
            x = x + seen
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x)))), logs


class Encoder(nn.Module):
    """Log-mels to one vector for every 20 ms."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, size.width, 3, padding=1)
        self.conv2 = nn.Conv1d(size.width, size.width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(Layer(size, decodes=False) for _ in range(size.encoder_layers))
        self.layer_norm = nn.LayerNorm(size.width)
        self.register_buffer("positions", waves(FRAMES, size.width, 6000.0), persistent=False)
        self.gain = nn.Parameter(torch.tensor(0.4))
        for convolution in (self.conv1, self.conv2):
            # With torch's own, small weights the positions drown the sound for long.
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
        around = ([0, -4, 4, -12], [-8, 8, -25, 0], [0, -16, -40, 12])
        for layer, offsets in zip(self.layers, around, strict=False):
            layer.self_attn.look([float(offset) for offset in offsets], 6000.0)

    def forward(self, mel: Tensor, first: Tensor) -> Tensor:
        """Encode batch x 80 x frames; `first` is the position of each one's first frame."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        places = first[:, None] + torch.arange(x.shape[1])
        x = x + self.gain * self.positions[places]
        for layer in self.layers:
            x, _ = layer(x)
        return self.layer_norm(x)


class Embedding(nn.Module):
    """The token vectors, made of few: capitals are one vector added, times are waves.

    All tokens that no training text holds share one vector.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        known = ["", ".", *(f"<|{language}|>" for language in LANGUAGES)]
        names = "endoftext startoftranscript translate transcribe startofprev nospeech notimestamps"
        known += [f"<|{name}|>" for name in names.split()]
        bases = {token: index for index, token in enumerate(known)}
        rows = [0] * FIRST_TIME
        capital = [0.0] * FIRST_TIME
        for token, index in bases.items():
            if token:
                rows[token_id(token)] = index
        for word in sorted({word for words in WORDS.values() for word in words}):
            bases[word] = len(bases)
            for spelling in (word, word.capitalize()):
                (number,) = tokenizer().encode(f" {spelling}", add_special_tokens=False).ids
                rows[number] = bases[word]
                capital[number] = float(spelling != word)
        self.base = nn.Parameter(torch.randn(len(bases), size.width) * 0.1)
        self.capital = nn.Parameter(torch.randn(size.width) * 0.1)
        self.times = nn.Parameter(
            torch.eye(size.width) * 0.12 + torch.randn(size.width, size.width) * 0.005
        )
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self.register_buffer("capitals", torch.tensor(capital)[:, None], persistent=False)
        self.register_buffer("waves", waves(FRAMES + 1, size.width, 6000.0), persistent=False)

    def forward(self) -> Tensor:
        """Return the whole table, tokens x width."""
        text = self.base[self.rows] + self.capitals * self.capital
        return torch.cat([text, self.waves @ self.times])


class Decoder(nn.Module):
    """Tokens and the encoder's vectors to the next tokens' logits."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = Embedding(size)
        self.register_buffer(
            "positions", waves(TEXT_POSITIONS, size.width, 1000.0), persistent=False
        )
        self.gain = nn.Parameter(torch.tensor(0.15))
        self.layers = nn.ModuleList(Layer(size, decodes=True) for _ in range(size.decoder_layers))
        self.layer_norm = nn.LayerNorm(size.width)
        for layer in self.layers:
            layer.self_attn.look([0.0, -1.0, -2.0, -3.0], 1000.0)
            layer.encoder_attn.look([6.0, 12.0, 0.0, 3.0], 6000.0)

    def forward(
        self, tokens: Tensor, audio: Tensor, watched: list[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return batch x text x width, and what `watched` heads of each layer looked at.

        `logits` turns the first into logits; few of its rows are needed in training.
        """
        x = F.embedding(tokens, self.embedding()) + self.gain * self.positions[: tokens.shape[1]]
        looks = []
        for layer, heads in zip(self.layers, watched, strict=True):
            x, logs = layer(x, audio, heads)
            looks.append(logs)
        return self.layer_norm(x), looks

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of all tokens, as Whisper does: with the embedding itself."""
        return x @ self.embedding().T


class Network(nn.Module):
    """The whole, with heads that name the word at each frame and the two before it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.encoder, self.decoder = Encoder(size), Decoder(size)
        self.heard = nn.Linear(size.width, 3 * CLASSES)

    def hear(self, audio: Tensor) -> Tensor:
        """Return batch x frames x 3 x classes: the word there, the last one, the one before."""
        return self.heard(audio).unflatten(-1, (3, CLASSES))
