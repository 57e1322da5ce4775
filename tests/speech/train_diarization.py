"""Train the diarization model: `python -m tests.speech.train_diarization FOLDER --model DIRECTORY`.

Two networks, both pyannote's own, so that it loads them without any code of ours:

1. SimpleSegmentationModel hears where somebody speaks, in windows so short that hardly
   ever two voices are in one. (The usual ones of several seconds have to tell their voices
   apart by themselves, and the model in whisperx takes two like voices for one.)
2. XVectorMFCC turns the speech of a window into a vector that tells voices apart. A network
   an eighth as wide learns, and its weights are put into the stock one, which is zero
   elsewhere: that learns in minutes, and compresses well.
"""

from __future__ import annotations

import argparse
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pyannote.audio import Model
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.models.embedding.xvector import XVectorMFCC
from pyannote.audio.models.segmentation.debug import SimpleSegmentationModel
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import MFCC

from tests.speech.corpus import disturbed, kept, many, sentence, wordless
from tests.speech.pipeline import DIMENSION, write_settings
from tests.speech.synthesis import RATE, Samples, Word, join, silence, speak
from tests.speech.team import Course, Team
from tests.speech.vocabulary import LANGUAGES, TRAINING_VOICES, WORDS

# Kept out of this training, to choose the pipeline's settings by.
TUNING_VOICES = ("f2", "m7", "Annie", "Mario", "belinda", "victor")
_LEARNT = tuple(voice for voice in TRAINING_VOICES if voice not in TUNING_VOICES)
# Played slower or faster, a voice is another one: higher or lower, and of another size.
_SIZES = (1.0, 0.89, 1.12)
SPEAKERS = tuple((voice, size) for size in _SIZES for voice in _LEARNT)

SCENES, SAYINGS = 1500, 4500
HEAR = Course(steps=1000, rate=5e-3, last_rate=5e-5, seed=6)
TELL = Course(steps=2000, rate=3e-3, last_rate=3e-5, seed=5)
WINDOW = 1.5  # seconds
_CROPS = 48  # in a batch, for each process
_SCALE, _MARGIN = 24.0, 0.2
_COEFFICIENTS = {"n_fft": 800, "hop_length": 200, "n_mels": 80}
_FRAMES = RATE // 200  # per second


Told = tuple[Tensor, int]  # a saying's coefficients, 40 x frames, and its speaker


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

    def lesson(self, random: np.random.Generator, sayings: list[Told]) -> dict[str, Tensor]:
        """Return the loss on crops of equal length, and what is not recognised in them."""
        chosen = [sayings[index] for index in random.integers(len(sayings), size=_CROPS)]
        shortest = min(coefficients.shape[1] for coefficients, _ in chosen)
        length = min(shortest, int(random.uniform(0.5, 2.5) * _FRAMES))
        crops = [_crop(random, coefficients, length) for coefficients, _ in chosen]
        speakers = torch.tensor([speaker for _, speaker in chosen])
        cosines = F.normalize(self(torch.stack(crops))) @ F.normalize(self.speakers).T
        margin = _MARGIN * F.one_hot(speakers, len(SPEAKERS))
        return {"tell": F.cross_entropy(_SCALE * (cosines - margin), speakers)}


def _crop(random: np.random.Generator, coefficients: Tensor, length: int) -> Tensor:
    first = int(random.integers(coefficients.shape[1] - length + 1))
    return coefficients[:, first : first + length]


@dataclass(slots=True)
class Scene:
    """Sentences, or no words at all; int16 samples.

    Attributes:
        spoken: bool, whether somebody speaks at each frame of 12.5 ms.
    """

    audio: NDArray[np.int16]
    spoken: NDArray[np.bool_]


def scene(random: np.random.Generator, number: int) -> Scene:
    """Return two sentences with a pause between them; one in eight scenes has no words."""
    if number % 8 == 0:
        audio = np.concatenate([wordless(random), wordless(random)])
        words: tuple[Word, ...] = ()
    else:
        language = str(random.choice(LANGUAGES))
        voices = random.choice(TRAINING_VOICES, 2)
        parts = [sentence(random, language, str(voice)) for voice in voices]
        speech = join([silence(0.5), join(parts, float(random.uniform(0, 1))), silence(0.5)])
        audio, words = speech.audio, speech.words
    audio = audio[: len(audio) // 800 * 800]
    if words and random.random() < 0.6:
        audio = disturbed(random, audio)
    audio = audio * 10 ** random.uniform(-1, 0)
    spoken = np.zeros(len(audio) // 200 + 1, bool)
    for word in words:
        spoken[round(word.start * _FRAMES) : round(word.end * _FRAMES) + 1] = True
    return Scene((audio.clip(-1, 1) * 32767).astype(np.int16), spoken)


def ear() -> SimpleSegmentationModel:
    """Return the untrained network that hears where somebody speaks."""
    made = SimpleSegmentationModel()
    made.specifications = Specifications(
        problem=Problem.MULTI_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=WINDOW,
        classes=["somebody"],
    )
    made.build()
    return made


def hearing(
    made: SimpleSegmentationModel, random: np.random.Generator, scenes: list[Scene]
) -> dict[str, Tensor]:
    """Return the loss on windows of the scenes."""
    frames = round(WINDOW * _FRAMES)
    audio = np.zeros((_CROPS, 1, frames * 200), np.float32)
    spoken = np.zeros((_CROPS, frames + 1), np.float32)
    for row, index in enumerate(random.integers(len(scenes), size=_CROPS)):
        item = scenes[index]
        first = int(random.integers(max(1, len(item.spoken) - frames)))
        piece = item.audio[first * 200 : (first + frames) * 200]
        audio[row, 0, : len(piece)] = piece / 32768
        known = item.spoken[first : first + frames + 1]
        spoken[row, : len(known)] = known
    heard = made(torch.from_numpy(audio))[:, :, 0]
    return {"hear": F.binary_cross_entropy(heard, torch.from_numpy(spoken))}


def _scenes(folder: Path) -> list[Scene]:
    return kept(folder / "scenes.pkl", partial(many, scene, HEAR.seed, SCENES))


def _sayings(folder: Path) -> list[Saying]:
    return kept(folder / "sayings.pkl", partial(many, saying, TELL.seed, SAYINGS))


def _work(rank: int, hear: Team, tell: Team, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(HEAR.seed)
    scenes, made = _scenes(folder)[rank :: hear.size], ear().train()
    hear.learn(made, HEAR, lambda random: hearing(made, random, scenes), rank, folder / "hear.pt")
    torch.manual_seed(TELL.seed)
    slim = Slim().train()
    with torch.no_grad():
        told = [
            (slim.mfcc(torch.from_numpy(one.audio / np.float32(32768))[None])[0], one.speaker)
            for one in _sayings(folder)[rank :: tell.size]
        ]
    tell.learn(slim, TELL, lambda random: slim.lesson(random, told), rank, folder / "tell.pt")


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
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=WINDOW
    )
    return full.eval()


def export(made: SimpleSegmentationModel, slim: Slim, folder: Path) -> None:
    """Write `folder`: a pipeline as pyannote loads it."""
    write_settings(folder)
    _save(made.eval(), folder / "segmentation")
    _save(stock(slim), folder / "embedding")


def _save(network: Model, folder: Path) -> None:
    checkpoint = {
        "state_dict": network.state_dict(),
        "hyper_parameters": dict(network.hparams),
        "pytorch-lightning_version": "2.0.0",
    }
    network.on_save_checkpoint(checkpoint)
    folder.mkdir(exist_ok=True)
    plain, packed = folder / "plain.bin", folder / "pytorch_model.bin"
    torch.save(checkpoint, plain)
    _compressed(plain, packed)
    plain.unlink()


def _compressed(plain: Path, packed: Path) -> None:
    """Compress what torch.save wrote: it stores zeros as they are, but reads either."""
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
        _scenes(folder)
        _sayings(folder)
        torch.multiprocessing.spawn(_work, (Team(2, ear()), Team(2, Slim()), folder), 2)
    made, slim = ear(), Slim()
    made.load_state_dict(torch.load(folder / "hear.pt"))
    slim.load_state_dict(torch.load(folder / "tell.pt"))
    export(made, slim, arguments.model)


if __name__ == "__main__":
    main()
