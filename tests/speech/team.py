"""Processes that train one network together, and the rate at which they learn.

Two processes of one thread each learn from half a batch and share their gradients. On two
cores that is faster than one process of two threads, whose small products wait
for each other.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def falling_rate(step: int, steps: int, rate: float, last_rate: float) -> float:
    """Return the rate for one of `steps`: up in a hundred of them, then down along a cosine."""
    warm = min(1.0, (step + 1) / 100)
    fall = (1 + math.cos(math.pi * step / steps)) / 2
    return warm * (last_rate + (rate - last_rate) * fall)


@dataclass(frozen=True, slots=True)
class Course:
    """One training from beginning to end: how many steps, the first rate and the last."""

    steps: int
    rate: float
    last_rate: float
    seed: int


class Team:
    """The processes that train together, each with the same network and its own clips."""

    def __init__(self, size: int, network: nn.Module) -> None:
        self.size = size
        length = sum(weight.numel() for weight in network.parameters())
        # Two sets: nobody writes the next step's gradients while another still reads.
        self._shared = torch.zeros(2, size, length).share_memory_()
        self._written = multiprocessing.get_context("spawn").Barrier(size)

    def average(self, network: nn.Module, rank: int, step: int) -> None:
        """Replace the network's gradients by the mean of the team's."""
        weights = list(network.parameters())
        flat = self._shared[step % 2]
        gradients = (torch.zeros_like(w) if w.grad is None else w.grad for w in weights)
        torch.cat([gradient.flatten() for gradient in gradients], out=flat[rank])
        self._written.wait()
        mean = flat.mean(0)
        for weight, part in zip(weights, mean.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)

    def learn(
        self,
        network: nn.Module,
        course: Course,
        lesson: Callable[[np.random.Generator], dict[str, Tensor]],
        rank: int,
        file: Path,
    ) -> None:
        """Train `network`, and keep its weights in `file`.

        Args:
            lesson: returns the parts of the loss on one batch, drawn by the generator.
        """
        optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
        began, means = time.monotonic(), dict[str, float]()
        for step in range(course.steps):
            rate = falling_rate(step, course.steps, course.rate, course.last_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            parts = lesson(np.random.default_rng((course.seed, step, rank)))
            optimizer.zero_grad()
            sum(parts.values(), torch.zeros(())).backward()
            self.average(network, rank, step)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            for name, part in parts.items():
                means[name] = 0.98 * means.get(name, part.item()) + 0.02 * part.item()
            if not rank and step % 50 == 49:
                shown = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
                passed = time.monotonic() - began
                print(f"{step + 1}/{course.steps}  {shown}  {passed:.0f} s", flush=True)
        if not rank:
            torch.save(network.state_dict(), file)
