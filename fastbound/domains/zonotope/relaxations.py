"""The relaxations of a zonotope: the slope of a non-linear function, and what becomes of the remaining width.

On [l, u] a ReLU lies in ``slope x + m -+ m`` with ``m = max(-l slope, u (1 - slope)) / 2`` for every slope in [0, 1],
so a relaxation is a choice of slopes for neurons with l < 0 < u.
Source: Jovanovic et al., 2022, arXiv 2102.06700, whose DeepZ slope contains the 1e-6; m is sound with it too.
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
    """A slope that goes continuously from 0 to 1 as the interval moves from below 0 to above it."""
    return torch.sigmoid(gamma * (lower / (upper + _TINY) - upper / (lower - _TINY)))


@dataclass(frozen=True)
class Relaxation:
    """A relaxation of the zonotope domain.

    ``slope`` [*] of neurons with l < 0 < u, from their bounds; neurons below 0 have ``dead_slope``. Widths become error
    terms (``makes_terms``) or are added to the remainder. The box consists of error terms too (``starts_as_terms``) or
    is all remainder. ``by_box``: relax on the bounds of the interval domain instead of those of the zonotope.
    """

    slope: Callable[[Tensor, Tensor], Tensor]
    makes_terms: bool = True
    starts_as_terms: bool = True
    dead_slope: float = 0.0
    by_box: bool = False

    @property
    def flat(self) -> bool:
        """Whether functions are covered by constants on intervals on which they are not linear."""
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
