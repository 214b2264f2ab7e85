"""Continuity of a relaxation: the share of jumps in the variation of the certified loss along lines of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.study.probe import Probe

STEPS, SUSPECTS, HALVINGS = 32, 4, 10
# How far a line goes, as a share of the norm of every weight tensor.
REACH = 0.1
# A continuous loss changes this many times less, at least, when a step is ten times shorter.
FALL = 5.0


class Scan(NamedTuple):
    """``changes[k]``: the change over the suspected steps when they are 2^k times shorter, as a share of the variation
    of the line."""

    changes: list[float]

    @property
    def jump_share(self) -> float:
        """The share in [0, 1] of the variation that is left at the shortest step: the jumps, and less than a
        thousandth of the smooth change."""
        return self.changes[-1]

    @property
    def continuous(self) -> bool:
        """Whether the change falls `FALL` times when the step falls ten times, over the shorter half of the steps:
        the longer ones still separate kinks."""
        half = len(self.changes) // 2
        shorter = len(self.changes) - 1 - half
        return self.changes[-1] * FALL ** (shorter * math.log10(2)) <= self.changes[half]


def scan(
    function: Callable[[float], float], steps: int = STEPS, suspects: int = SUSPECTS, halvings: int = HALVINGS
) -> Scan:
    """Looks for jumps of a function on [0, 1].

    The function is read at ``steps`` + 1 equally spaced points; its variation is the sum of its absolute changes.
    The ``suspects`` steps whose change differs most from that of their neighbours are suspected. Each is halved
    ``halvings`` times, and the half with the larger change is kept. The change of a step with a jump stays at least the
    jump's size; if the function is continuous, it vanishes with the step.

    The result is a lower estimate: of several jumps in one step only one is followed.
    """
    points = [index / steps for index in range(steps + 1)]
    values = [function(point) for point in points]
    rises = [high - low for low, high in pairwise(values)]
    variation = sum(map(abs, rises))
    if variation == 0:
        return Scan([0.0] * (halvings + 1))
    chosen = sorted(range(steps), key=lambda index: -_oddness(rises, index))[:suspects]
    followed = [
        _halved(function, points[index : index + 2], values[index : index + 2], halvings) for index in sorted(chosen)
    ]
    return Scan([sum(changes) / variation for changes in zip(*followed)])


def _oddness(rises: list[float], index: int) -> float:
    """How much a rise differs from the mean of its neighbours'."""
    neighbours = rises[max(index - 1, 0) : index] + rises[index + 1 : index + 2]
    return abs(rises[index] - sum(neighbours) / max(len(neighbours), 1))


def _halved(function: Callable[[float], float], ends: list[float], values: list[float], halvings: int) -> list[float]:
    """The absolute change of a step, and of the halves that are kept one after the other."""
    (left, right), (low, high) = ends, values
    changes = [abs(high - low)]
    for _ in range(halvings):
        middle = (left + right) / 2
        value = function(middle)
        if abs(value - low) > abs(high - value):
            right, high = middle, value
        else:
            left, low = middle, value
        changes.append(abs(high - low))
    return changes


def continuity(probe: Probe, method: str, lines: int = 2, seed: int = 0) -> Scan:
    """The mean `scan` of the certified loss along ``lines`` random directions of all weights.

    A line goes from the weights w to w + `REACH` d. Directions d are Gaussian, scaled to the norm of each
    weight tensor; the same seed gives the same lines for every method.

    Soundness: a measurement, not a bound: a loss without jumps on these lines may have some elsewhere.
    Source: the property is that of Jovanovic et al., 2022, arXiv 2102.06700, who show it on single neurons; the measure
    is ours.
    """
    generator = torch.Generator().manual_seed(seed)
    found = [scan(_loss_on_line(probe, method, generator)).changes for _ in range(lines)]
    return Scan([sum(changes) / lines for changes in zip(*found)])


def _loss_on_line(probe: Probe, method: str, generator: torch.Generator) -> Callable[[float], float]:
    """The certified loss as a function of the place in [0, 1] on a random line of weights."""
    directions = {name: REACH * _direction(weight, generator) for name, weight in probe.weights.items()}

    def loss(place: float) -> float:
        return probe.loss(method, {name: w + place * directions[name] for name, w in probe.weights.items()})

    return loss


def _direction(weight: Tensor, generator: torch.Generator) -> Tensor:
    direction = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
    return direction * (weight.norm() / direction.norm())
