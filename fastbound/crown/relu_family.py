"""Pairs of lines around a ReLU from the relaxations study, in addition to the four that `crown_relu` fuses.

A name gives the lower line of neurons with l < 0 < u; ``tria`` means that the upper line has slope 1 or 0 instead of
the chord's. A ``-c`` relaxation also relaxes stable neurons, so that it is continuous when neurons become unstable.
Source: Jovanovic et al., 2022, arXiv 2102.06700.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastbound.domains.zonotope.relaxations import soft_slope
from fastbound.primitives.crown_relu import lines as fused_lines

# Slope and offset of the lower line, slope and offset of the upper line, each [B, *].
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _soft(gamma: float) -> Callable[[Tensor, Tensor], Four]:
    def lines(center: Tensor, radius: Tensor) -> Four:
        """Lower line ``s x`` with a slope that goes continuously from 0 to 1; upper line: the chord."""
        exact, chord, offset = fused_lines(center, radius, 0.0, "one")
        below, above = (center - radius).clamp(max=0), (center + radius).clamp(min=0)
        slope = torch.where(center.abs() < radius, soft_slope(below, above, gamma), exact)
        return slope, torch.zeros_like(slope), chord, offset

    return lines


def _zero_c(center: Tensor, radius: Tensor) -> Four:
    """Lower line 0, or l if l > 0; upper line: the chord."""
    _, chord, offset = fused_lines(center, radius, 0.0, "zero")
    return torch.zeros_like(chord), (center - radius).clamp(min=0), chord, offset


def _one_c(center: Tensor, radius: Tensor) -> Four:
    """Lower line x, even if u < 0; upper line: the chord."""
    _, chord, offset = fused_lines(center, radius, 0.0, "one")
    return torch.ones_like(chord), torch.zeros_like(chord), chord, offset


def _zero_tria(center: Tensor, radius: Tensor) -> Four:
    """Lower line 0, upper line x - l."""
    return _where_unstable(center, radius, _zero_tria_c(center, radius))


def _zero_tria_c(center: Tensor, radius: Tensor) -> Four:
    """Lower line 0, or l if l > 0; upper line x - l, or x if l > 0."""
    lower = center - radius
    return torch.zeros_like(lower), lower.clamp(min=0), torch.ones_like(lower), -lower.clamp(max=0)


def _one_tria(center: Tensor, radius: Tensor) -> Four:
    """Lower line x, upper line u."""
    return _where_unstable(center, radius, _one_tria_c(center, radius))


def _one_tria_c(center: Tensor, radius: Tensor) -> Four:
    """Lower line x, even if u < 0; upper line u, or 0 if u < 0."""
    zero = torch.zeros_like(center)
    return torch.ones_like(center), zero, zero, (center + radius).clamp(min=0)


def _where_unstable(center: Tensor, radius: Tensor, found: Four) -> Four:
    exact, zero = (center >= radius).to(center.dtype), torch.zeros_like(center)
    unstable = center.abs() < radius
    pairs = zip(found, (exact, zero, exact, zero))
    return tuple(torch.where(unstable, line, other) for line, other in pairs)  # type: ignore[return-value]


FAMILY: dict[str, Callable[[Tensor, Tensor], Four]] = {
    "zero-c": _zero_c,
    "one-c": _one_c,
    "zero-tria": _zero_tria,
    "zero-tria-c": _zero_tria_c,
    "one-tria": _one_tria,
    "one-tria-c": _one_tria_c,
    "soft": _soft(1.0),
    "soft-10": _soft(10.0),
}


def family_lines(center: Tensor, radius: Tensor, negative_slope: float, relaxation: str) -> Four:
    """The lines of ``a x + (1 - a) relu(x)`` for a in [0, 1] on center -+ radius, each [B, *]."""
    lower, below, upper, above = FAMILY[relaxation](center, radius)
    if negative_slope == 0:
        return lower, below, upper, above
    rest = 1 - negative_slope
    return negative_slope + rest * lower, rest * below, negative_slope + rest * upper, rest * above


def exact_where_stable(relaxation: str) -> bool:
    """Whether the lines of neurons whose bounds do not cross 0 are the ReLU itself."""
    return not relaxation.endswith("-c")
