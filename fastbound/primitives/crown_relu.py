"""`crown_relu`: the lines around a (leaky) ReLU on an interval, and which rows the backward reads.

With z in center and radius (``q = c / r``) and slope a in [0, 1] on the negative side:

* c >= r: both lines z; c <= -r: both lines a z;
* else the upper line is the chord ``s z + t``, ``s = (1 + a) / 2 + (1 - a) / 2 q``, ``t = (1 - a) / 2 (r - c q)``, and
  the lower line any slope in [a, 1] through 0: see `RELAXATIONS`. The test ``|c| < r`` is exact and r > 0 where it
  holds, so no denominator needs a guard.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The lower line of an unstable neuron: adaptive, slope 1 where u > -l, else a (least area); same-slope, that of the
# chord (Fast-Lin: Weng et al., 2018, arXiv 1804.09699); zero, slope a; one, slope 1.
RELAXATIONS = ("adaptive", "same-slope", "zero", "one")


def reads_output(dtype: torch.dtype, scale: Tensor | None) -> bool:  # [C]
    """Whether the backward reads the outgoing rows, and not the incoming; half precision has rounded those."""
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
