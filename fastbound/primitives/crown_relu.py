"""`crown_relu`: the lines around a (leaky) ReLU on an interval, and which rows the backward reads.

With z in center and radius (``q = c / r``) and slope a in [0, 1] on the negative side:

* c >= r: both lines z; c <= -r: both lines a z;
* else the upper line is the chord ``s z + t``, ``s = (1 + a) / 2 + (1 - a) / 2 q``, ``t = (1 - a) / 2 (r - c q)``, and
  the lower line passes through 0 with any slope in [a, 1]: see `RELAXATIONS`. The test ``|c| < r`` is exact and implies
  r > 0, so no denominator needs a guard.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The lower line of an unstable neuron has slope 1 if u > -l, else a (adaptive: least area); the slope of the chord
# (same-slope; Fast-Lin: Weng et al., 2018, arXiv 1804.09699); a (zero); or 1 (one).
RELAXATIONS = ("adaptive", "same-slope", "zero", "one")


def reads_output(dtype: torch.dtype, scale: Tensor | None) -> bool:  # [C]
    """Whether the backward reads the outgoing rows instead of the incoming ones; in half precision they are rounded."""
    return scale is None and dtype in (torch.float32, torch.float64)


def lines(
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
    slope: float,
    relaxation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # slopes of the lower and the upper line, intercept of the upper, [B, *]
    stable = center.abs() >= radius
    quotient = center / torch.where(stable, 1.0, radius)
    mean, half = (1 + slope) / 2, (1 - slope) / 2
    one, flat = torch.ones_like(center), torch.full_like(center, slope)
    fixed = torch.where(center >= radius, one, flat)
    upper = torch.where(stable, fixed, mean + half * quotient)
    intercept = torch.where(stable, torch.zeros_like(center), half * (radius - center * quotient))
    if relaxation == "same-slope":
        return upper, upper, intercept
    free = {"adaptive": torch.where(center > 0, one, flat), "zero": flat, "one": one}[relaxation]
    return torch.where(stable, fixed, free), upper, intercept
