"""How a zonotope covers a non-linear function: by which slope, and where the width goes that the slope leaves.

On [l, u] a ReLU lies in ``slope x + m -+ m`` with ``m = max(-l slope, u (1 - slope)) / 2`` for every slope in [0, 1],
so a relaxation is a choice of slopes for neurons with l < 0 < u.
Source: Jovanovic et al., 2022, arXiv 2102.06700, whose DeepZ slope carries the 1e-6; m is sound with it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-6


def _flat(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.zeros_like(lower)


def _identity(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.ones_like(lower)


def _least_area(lower: Tensor, upper: Tensor) -> Tensor:
    return upper / (upper - lower + _TINY)


def _switch(lower: Tensor, upper: Tensor) -> Tensor:
    return (-lower <= upper).to(lower.dtype)


def soft_slope(lower: Tensor, upper: Tensor, gamma: float = 1.0) -> Tensor:  # [*], l <= 0 <= u
    """A slope that goes from 0 to 1 without a jump as the interval moves from below 0 to above it."""
    return torch.sigmoid(gamma * (lower / (upper + _TINY) - upper / (lower - _TINY)))


@dataclass(frozen=True)
class Relaxation:
    """A rule of the zonotope domain.

    ``slope`` [*] for neurons with l < 0 < u, from their ends; neurons below 0 have ``dead_slope``. Widths become error
    terms (``makes_terms``) or join the interval remainder, in which a box without ``starts_as_terms`` begins too.
    ``by_box``: the ends are those of the interval domain.
    """

    slope: Callable[[Tensor, Tensor], Tensor]
    makes_terms: bool = True
    starts_as_terms: bool = True
    dead_slope: float = 0.0
    by_box: bool = False

    @property
    def flat(self) -> bool:
        """Whether functions are covered by constants wherever they are not linear."""
        return self.slope is _flat


RELAXATIONS: dict[str, Relaxation] = {
    "box": Relaxation(_flat, makes_terms=False, starts_as_terms=False),
    "hbox": Relaxation(_flat, makes_terms=False),
    "zbox": Relaxation(_flat),
    "deepz": Relaxation(_least_area),
    "hzono": Relaxation(_least_area, makes_terms=False),
    "diag": Relaxation(_identity),
    "diag-c": Relaxation(_identity, dead_slope=1.0),
    "switch": Relaxation(_switch),
    "soft": Relaxation(soft_slope),
    "deepz-ibp-r": Relaxation(_least_area, by_box=True),
}


def find_relaxation(name: str) -> Relaxation:
    if name not in RELAXATIONS:
        raise ValueError(f"relaxation: wanted one of {', '.join(RELAXATIONS)}, got {name!r}.")
    return RELAXATIONS[name]


def relu_cover(rule: Relaxation, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:  # [*], [*] -> [*], [*]
    """Slope, and the m of ``slope x + m -+ m``, of a ReLU on [lower, upper]."""
    below, above = lower.clamp(max=0), upper.clamp(min=0)
    slope = torch.where(upper > 0, rule.slope(below, above), rule.dead_slope)
    slope = torch.where(lower >= 0, 1.0, slope)
    return slope, torch.maximum(-below * slope, above * (1 - slope)) / 2
