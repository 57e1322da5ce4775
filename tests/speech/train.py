"""Train the test model: `python -m tests.speech.train` (all stages, from nothing).

Each stage is a number of steps with its own learning rate and its own mixture of clips.
A stopped run goes on where its last checkpoint was.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.speech.corpus import Unit, kept, units
from tests.speech.export import export
from tests.speech.lessons import Batch, Shelf, batch
from tests.speech.network import CLASSES, NO_WORD, Network, Size
from tests.speech.team import Team, falling_rate

UNITS, SEED = 36_000, 1


@dataclass(frozen=True, slots=True)
class Share:
    """One kind of batch in a stage's mixture.

    Attributes:
        weight: how often it comes, relative to the others.
        total: seconds of audio in a batch, for each process.
        seconds: the least and the greatest length of its clips.
        whole: padded to 30 s. since: the part of the stage, 0..1, after which it is used.
    """

    weight: float
    total: float
    seconds: tuple[float, float]
    whole: bool = False
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training; `writes` is false while only the encoder learns."""

    name: str
    steps: int
    rate: float
    last_rate: float
    mixture: tuple[Share, ...]
    writes: bool = True


STAGES = (
    Stage("hear", 2000, 2e-3, 1e-3, (Share(1, 20, (2, 4)),), writes=False),
    Stage(
        "write",
        4000,
        1.5e-3,
        3e-4,
        (
            Share(0.8, 28, (1, 7)),
            Share(0.2, 32, (7, 14), since=0.3),
            Share(0.1, 60, (0.5, 12), whole=True, since=0.6),
        ),
    ),
    Stage(
        "go far",
        2200,
        1e-3,
        2e-5,
        (
            Share(0.35, 32, (1, 8)),
            Share(0.25, 40, (8, 16)),
            Share(0.2, 60, (14, 34), whole=True),
            Share(0.2, 60, (0.5, 14), whole=True),
        ),
    ),
    Stage(
        "go on",
        800,
        6e-4,
        2e-5,
        (
            Share(0.3, 32, (1, 8)),
            Share(0.5, 60, (20, 44), whole=True),
            Share(0.2, 60, (0.5, 14), whole=True),
        ),
    ),
)


def losses(network: Network, lesson: Batch, writes: bool) -> dict[str, Tensor]:
    """Return the parts of the loss, already weighted."""
    audio = network.encoder(lesson.mel, lesson.first)
    heard = network.hear(audio)
    rarity = torch.ones(CLASSES)
    rarity[NO_WORD] = 0.15  # most frames are silence
    now, before = heard[:, :, 0].flatten(0, 1), heard[:, :, 1:].flatten(0, 2)
    parts = {
        "hear": 0.5 * F.cross_entropy(now, lesson.heard[:, :, 0].flatten(), rarity),
        "recall": 0.4 * F.cross_entropy(before, lesson.heard[:, :, 1:].flatten()),
    }
    if writes:
        watched = [0] * (network.size.decoder_layers - 2) + [1, network.size.timed]
        written, looks = network.decoder(lesson.tokens, audio, watched)
        known = lesson.targets >= 0
        logits = network.decoder.logits(written[known])
        parts["write"] = F.cross_entropy(logits, lesson.targets[known])
        taught = lesson.looks.sum().clamp(min=1)
        # The last layer's heads give the word times; one layer earlier helps it find them.
        for layer, weight in ((-1, 0.4), (-2, 0.2)):
            missed = -(lesson.looks[:, None] * looks[layer]).sum()
            parts[f"look{layer}"] = weight * missed / (taught * watched[layer])
    return parts


def _batch(random: np.random.Generator, shelf: Shelf, stage: Stage, step: int) -> Batch:
    shares = [share for share in stage.mixture if step >= share.since * stage.steps]
    weights = np.array([share.weight for share in shares])
    share = shares[random.choice(len(shares), p=weights / weights.sum())]
    seconds = random.uniform(*share.seconds)
    length = 30.0 if share.whole else max(seconds, 2.0)
    return batch(random, shelf, max(2, round(share.total / length)), seconds, share.whole)


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    """Return where a stage's result and its last checkpoint lie."""
    return folder / f"stage{number}.pt", folder / f"stage{number}.partial.pt"


def run_stage(
    network: Network, shelf: Shelf, number: int, folder: Path, team: Team, rank: int
) -> None:
    """Train one stage; its checkpoint and its result lie in `folder`."""
    stage = STAGES[number]
    result, checkpoint = _files(folder, number)
    if result.exists():
        network.load_state_dict(torch.load(result))
        return
    optimizer = torch.optim.AdamW(network.parameters(), stage.rate, (0.9, 0.98), weight_decay=0.01)
    done = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["step"]
    began, means = time.monotonic(), dict[str, float]()
    for step in range(done, stage.steps):
        # Seeded by the step, so that a resumed run sees the clips it would have seen.
        random = np.random.default_rng((SEED, number, step, rank))
        for group in optimizer.param_groups:
            group["lr"] = falling_rate(step, stage.steps, stage.rate, stage.last_rate)
        parts = losses(network, _batch(random, shelf, stage, step), stage.writes)
        optimizer.zero_grad()
        sum(parts.values(), torch.zeros(())).backward()
        team.average(network, rank, step)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if rank:
            continue
        for name, part in parts.items():
            means[name] = 0.98 * means.get(name, part.item()) + 0.02 * part.item()
        if step % 50 == 49:
            shown = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            print(
                f"{stage.name} {step + 1}/{stage.steps}  {shown}  {time.monotonic() - began:.0f} s",
                flush=True,
            )
        if step % 500 == 499:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1}, checkpoint)
    if not rank:
        torch.save(network.state_dict(), result)


def _units(folder: Path) -> list[Unit]:
    return kept(folder / "units.pkl", partial(units, SEED, UNITS))


def _work(rank: int, team: Team, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    shelf = Shelf(_units(folder))
    network = Network(Size())
    for number in range(len(STAGES)):
        run_stage(network, shelf, number, folder, team, rank)


def train(folder: Path, processes: int = 2) -> Network:
    """Return a trained network; its corpus and its checkpoints are kept in `folder`."""
    _units(folder)
    torch.multiprocessing.spawn(_work, (Team(processes, Network(Size())), folder), processes)
    return trained(folder, len(STAGES) - 1)


def trained(folder: Path, stage: int) -> Network:
    """Return the network as `stage` left it, or as its last checkpoint holds it."""
    network = Network(Size())
    result, checkpoint = _files(folder, stage)
    weights = torch.load(result) if result.exists() else torch.load(checkpoint)["network"]
    network.load_state_dict(weights)
    return network


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the corpus and the checkpoints, 2 GB")
    parser.add_argument("--model", type=Path, required=True, help="the directory to write")
    parser.add_argument("--stage", type=int, help="do not train: export what this stage has so far")
    arguments = parser.parse_args()
    if arguments.stage is None:
        network = train(arguments.folder)
    else:
        network = trained(arguments.folder, arguments.stage)
    export(network, arguments.model)


if __name__ == "__main__":
    main()
