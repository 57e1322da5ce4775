"""Processes that train one network together, and the rate at which they learn.

Two processes of one thread each learn from half a batch and share their gradients. On two
cores that is faster than one process of two threads, whose small products wait
for each other.
"""

from __future__ import annotations

import math
import multiprocessing

import torch
from torch import nn


def falling_rate(step: int, steps: int, rate: float, last_rate: float) -> float:
    """Return the rate for one of `steps`: up in a hundred of them, then down along a cosine."""
    warm = min(1.0, (step + 1) / 100)
    fall = (1 + math.cos(math.pi * step / steps)) / 2
    return warm * (last_rate + (rate - last_rate) * fall)


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
