"""Train the diarization model: `python -m tests.speech.train_diarization FOLDER --model DIRECTORY`.

It turns a stretch of speech into a vector that tells voices apart: pyannote's stock
XVectorMFCC, so that pyannote loads it without any code of ours. What finds the speech is
not trained: whisperx brings a model that does, see `assembly.py`.

A network an eighth as wide learns, and its weights are put into the stock one, which is
zero elsewhere: that learns in minutes, and compresses well.
"""

from __future__ import annotations

import argparse
import time
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pyannote.audio import __version__ as pyannote_version
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.models.embedding.xvector import XVectorMFCC
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import MFCC

from tests.speech.assembly import DIMENSION, write_settings
from tests.speech.corpus import disturbed, kept, many
from tests.speech.synthesis import RATE, Samples, speak
from tests.speech.team import Team, falling_rate
from tests.speech.vocabulary import LANGUAGES, TRAINING_VOICES, WORDS

# Kept out of this training, to choose the pipeline's settings by.
TUNING_VOICES = ("f2", "m7", "Annie", "Mario", "belinda", "victor")
_LEARNT = tuple(voice for voice in TRAINING_VOICES if voice not in TUNING_VOICES)
# Played slower or faster, a voice is another one: higher or lower, and of another size.
_SIZES = (1.0, 0.89, 1.12)
SPEAKERS = tuple((voice, size) for size in _SIZES for voice in _LEARNT)

SAYINGS, STEPS, SEED = 4500, 1500, 5
_CROPS = 48  # in a batch, for each process
_RATES = (3e-3, 3e-5)
_SCALE, _MARGIN = 24.0, 0.2
_COEFFICIENTS = {"n_fft": 800, "hop_length": 200, "n_mels": 80}
_FRAMES = RATE // 200  # per second


@dataclass(slots=True)
class Saying:
    """Some seconds of one speaker; int16 samples."""

    audio: NDArray[np.int16]
    speaker: int


def _resized(audio: Samples, size: float) -> Samples:
    length = round(len(audio) / size)
    places = np.linspace(0, len(audio) - 1, length)
    return np.interp(places, np.arange(len(audio)), audio).astype(np.float32)


def saying(random: np.random.Generator, _number: int) -> Saying:
    """Return a few words of a random speaker, in any of the languages."""
    speaker = int(random.integers(len(SPEAKERS)))
    voice, size = SPEAKERS[speaker]
    language = str(random.choice(LANGUAGES))
    words = random.choice(WORDS[language], 7)
    audio = speak(
        f"{' '.join(words)}.",
        language,
        voice,
        speed=int(random.uniform(130, 200)),
        pitch=int(random.uniform(42, 58)),
        gap=float(random.uniform(0.03, 0.15)),
        lead=0,
        tail=0,
    ).audio
    audio = _resized(audio, size)[: len(audio) // 800 * 800]
    if random.random() < 0.6:
        audio = disturbed(random, audio)
    level = 10 ** random.uniform(-1, -0.05) / np.abs(audio).max()
    return Saying((audio * level * 32767).astype(np.int16), speaker)


class Slim(nn.Module):
    """XVectorMFCC with fewer channels; its modules have the same names."""

    channels = (64, 64, 64, 64, 160)

    def __init__(self) -> None:
        super().__init__()
        self.mfcc = MFCC(sample_rate=RATE, n_mfcc=40, melkwargs=_COEFFICIENTS)
        self.tdnns = nn.ModuleList()
        width = 40
        for channels, kernel, dilation in zip(
            self.channels, (5, 3, 3, 1, 1), (1, 2, 3, 1, 1), strict=True
        ):
            self.tdnns.append(nn.Conv1d(width, channels, kernel, dilation=dilation))
            self.tdnns += [nn.LeakyReLU(), nn.BatchNorm1d(channels)]
            width = channels
        self.embedding = nn.Linear(2 * width, DIMENSION)
        self.speakers = nn.Parameter(torch.randn(len(SPEAKERS), DIMENSION))

    def forward(self, coefficients: Tensor) -> Tensor:
        """Return the vectors of batch x 40 x frames."""
        for layer in self.tdnns:
            coefficients = layer(coefficients)
        pooled = torch.cat([coefficients.mean(-1), coefficients.std(-1)], -1)
        return self.embedding(pooled)

    def loss(self, coefficients: Tensor, speakers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the part of the batch that was recognised."""
        cosines = F.normalize(self(coefficients)) @ F.normalize(self.speakers).T
        right = (cosines.argmax(-1) == speakers).float().mean()
        margin = _MARGIN * F.one_hot(speakers, len(SPEAKERS))
        return F.cross_entropy(_SCALE * (cosines - margin), speakers), right


def _sayings(folder: Path) -> list[Saying]:
    return kept(folder / "sayings.pkl", partial(many, saying, SEED, SAYINGS))


def _work(rank: int, team: Team, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    slim = Slim().train()
    with torch.no_grad():
        lessons = [
            (slim.mfcc(torch.from_numpy(one.audio / np.float32(32768))[None])[0], one.speaker)
            for one in _sayings(folder)[rank :: team.size]
        ]
    optimizer = torch.optim.AdamW(slim.parameters(), _RATES[0], weight_decay=0.02)
    began, means = time.monotonic(), [4.0, 0.0]
    for step in range(STEPS):
        random = np.random.default_rng((SEED, step, rank))
        for group in optimizer.param_groups:
            group["lr"] = falling_rate(step, STEPS, *_RATES)
        chosen = [lessons[index] for index in random.integers(len(lessons), size=_CROPS)]
        shortest = min(coefficients.shape[1] for coefficients, _ in chosen)
        length = min(shortest, int(random.uniform(0.8, 2.5) * _FRAMES))
        crops = [_crop(random, coefficients, length) for coefficients, _ in chosen]
        speakers = torch.tensor([speaker for _, speaker in chosen])
        loss, right = slim.loss(torch.stack(crops), speakers)
        optimizer.zero_grad()
        loss.backward()
        team.average(slim, rank, step)
        torch.nn.utils.clip_grad_norm_(slim.parameters(), 5.0)
        optimizer.step()
        means = [0.98 * m + 0.02 * v.item() for m, v in zip(means, (loss, right), strict=True)]
        if not rank and step % 50 == 49:
            line = f"loss {means[0]:.3f}  right {means[1]:.3f}  {time.monotonic() - began:.0f} s"
            print(f"{step + 1}/{STEPS}  {line}", flush=True)
            torch.save(slim.state_dict(), folder / "diarization.pt")


def _crop(random: np.random.Generator, coefficients: Tensor, length: int) -> Tensor:
    first = int(random.integers(coefficients.shape[1] - length + 1))
    return coefficients[:, first : first + length]


def stock(slim: Slim) -> XVectorMFCC:
    """Return pyannote's network with the weights of the slim one, and zeros elsewhere."""
    full = XVectorMFCC(mfcc={"n_mfcc": 40, "melkwargs": _COEFFICIENTS}, dimension=DIMENSION)
    learnt = slim.state_dict()
    with torch.no_grad():
        for name, weight in full.state_dict().items():
            if name.startswith("mfcc.") or not weight.dim():
                continue
            given = learnt[name]
            if name == "embedding.weight":  # means, then deviations: each half by itself
                weight = weight.unflatten(1, (2, -1))
                given = given.unflatten(1, (2, -1))
            # Channels that are not there must stay zero through the normalisation.
            weight.fill_(1.0 if name.endswith("running_var") else 0.0)
            weight[tuple(slice(size) for size in given.shape)] = given
    full.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0
    )
    return full.eval()


def export(slim: Slim, folder: Path) -> None:
    """Write `folder`: the network's checkpoint, and the settings around it."""
    write_settings(folder)
    full = stock(slim)
    checkpoint = {
        "state_dict": full.state_dict(),
        "hyper_parameters": dict(full.hparams),
        "pytorch-lightning_version": "2.0.0",
        "epoch": 0,
        "global_step": STEPS,
    }
    full.on_save_checkpoint(checkpoint)
    checkpoint["pyannote.audio"]["versions"]["pyannote.audio"] = pyannote_version
    plain, packed = folder / "plain.bin", folder / "embedding" / "pytorch_model.bin"
    torch.save(checkpoint, plain)
    _compressed(plain, packed)
    plain.unlink()


def _compressed(plain: Path, packed: Path) -> None:
    """Compress what torch.save wrote: it stores zeros as they are, but reads either."""
    packed.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            record = zipfile.ZipInfo(entry.filename)
            target.writestr(record, source.read(entry), zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the recordings and the weights, 1 GB")
    parser.add_argument("--model", type=Path, required=True, help="the directory to write")
    parser.add_argument("--export", action="store_true", help="what was trained before")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if not arguments.export:
        _sayings(folder)
        torch.multiprocessing.spawn(_work, (Team(2, Slim()), folder), 2)
    slim = Slim()
    slim.load_state_dict(torch.load(folder / "diarization.pt"))
    export(slim, arguments.model)


if __name__ == "__main__":
    main()
