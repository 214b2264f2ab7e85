"""Two lines around each non-linear function on an interval: ``slope_l z + offset_l <= f(z) <= slope_u z + offset_u``.

ReLU has its own fused primitive, `crown_relu`; the lines here serve the other element-wise functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.crown.relu_family import FAMILY, family_lines
from fastbound.domains.records import Clamp, LeakyReLU, Smooth
from fastbound.primitives.crown_relu import RELAXATIONS
from fastbound.primitives.crown_relu import lines as relu_lines


class Lines(NamedTuple):
    """Slopes and offsets [B, *] of the lower and the upper line."""

    lower_slope: Tensor
    lower_offset: Tensor | None  # None: 0
    upper_slope: Tensor
    upper_offset: Tensor


def lines(record: LeakyReLU | Clamp | Smooth, center: Tensor, radius: Tensor, relaxation: str) -> Lines:
    """The two lines of an element-wise function on center -+ radius, each [B, *]."""
    if isinstance(record, LeakyReLU):
        return _leaky_relu(center, radius, record.negative_slope, relaxation)
    if isinstance(record, Clamp):
        if relaxation in FAMILY:
            raise ValueError(  # reading an end may not raise an AttributeError, as MissingRuleError is
                f"relaxation: {relaxation!r} has lines for ReLU, none for clamp (hardtanh, relu6); use one of "
                f"{', '.join(RELAXATIONS)}."
            )
        return _clamp(center - radius, center + radius, record, relaxation)
    return _smooth(center - radius, center + radius, record.name)


def _leaky_relu(center: Tensor, radius: Tensor, slope: float, relaxation: str) -> Lines:
    # leaky_relu(z, a) = -a leaky_relu(-z, 1/a): for a > 1 concave, so the lower line becomes the upper one.
    middle, convex = (center, slope) if slope <= 1 else (-center, 1 / slope)
    below: Tensor | None
    if relaxation in FAMILY:
        lower, below, upper, above = family_lines(middle, radius, convex, relaxation)
    else:
        (lower, upper, above), below = relu_lines(middle, radius, convex, relaxation), None
    if slope <= 1:
        return Lines(lower, below, upper, above)
    constant = torch.zeros_like(above) if below is None else -below * slope
    return Lines(upper * slope, -above * slope, lower * slope, constant)


def _clamp(lower: Tensor, upper: Tensor, record: Clamp, relaxation: str) -> Lines:
    """Up to two kinks. Each line is the steeper one that touches both kinks' sides, or a constant where that is closer.

    The lower line runs from (max(l, low), same) to (u, f(u)): above it lies the function, which rises with slope 1 from
    the first point and then stays at f(u); before that point it is constant and the line falls. The upper line is its
    mirror image.
    """
    high = math.inf if record.upper is None else record.upper
    low = -math.inf if record.lower is None else min(record.lower, high)  # crossed limits: torch gives the upper one
    middle = (lower + upper) / 2
    at_lower, at_upper = (x.clamp(low, high) for x in (lower, upper))
    start, end = lower.clamp(min=low), upper.clamp(max=high)
    flat = (upper <= low) | (lower >= high)

    def slope(rise: Tensor, run: Tensor) -> Tensor:  # a run of 0 lies on the identity
        return torch.where(flat, 0.0, torch.where(run > 0, rise / torch.where(run > 0, run, 1.0), 1.0))

    lower_slope, upper_slope = slope(at_upper - start, upper - start), slope(end - at_lower, end - lower)
    if relaxation != "one":
        steep = relaxation == "same-slope"
        lower_slope = torch.where((lower >= low) | steep | ((middle > low) & (relaxation != "zero")), lower_slope, 0.0)
        upper_slope = torch.where(
            (upper <= high) | steep | ((middle < high) & (relaxation != "zero")), upper_slope, 0.0
        )
    lower_offset = torch.where(lower_slope == 0, at_lower, start - lower_slope * start)
    upper_offset = torch.where(upper_slope == 0, at_upper, end - upper_slope * end)
    return Lines(lower_slope, lower_offset, upper_slope, upper_offset)


def _smooth(lower: Tensor, upper: Tensor, name: str) -> Lines:
    """Tangents and chords of a function that is odd about (0, ``height``), convex below 0 and concave above it."""
    height = 0.5 if name == "sigmoid" else 0.0
    upper_slope, upper_offset = _upper_line(lower, upper, name, height)
    lower_slope, lower_offset = _upper_line(-upper, -lower, name, height)
    return Lines(lower_slope, height - lower_offset, upper_slope, upper_offset + height)


def _upper_line(lower: Tensor, upper: Tensor, name: str, height: float) -> tuple[Tensor, Tensor]:
    """Slope and offset of an upper line of the odd function: a chord where it is convex or no tangent fits."""

    def function(x: Tensor) -> Tensor:
        return torch.sigmoid(x) - height if name == "sigmoid" else torch.tanh(x)

    def derivative(x: Tensor) -> Tensor:
        y = function(x)
        return 0.25 - y * y if name == "sigmoid" else 1 - y * y

    at_lower, at_upper = function(lower), function(upper)
    run = upper - lower
    chord = torch.where(run > 0, (at_upper - at_lower) / torch.where(run > 0, run, 1.0), derivative(upper))
    # Where the point of tangency lies beyond the interval, the chord is above the function.
    touch = torch.where(lower >= 0, (lower + upper) / 2, _tangency(lower, upper, function, derivative))
    use_chord = (upper <= 0) | ((lower < 0) & (derivative(upper) >= chord))
    slope = torch.where(use_chord, chord, derivative(touch))
    # An upper line of a convex piece is one at its two ends, however its slope was rounded.
    offset = torch.maximum(at_lower - slope * lower, at_upper - slope * upper)
    return slope, torch.where(use_chord, offset, function(touch) - derivative(touch) * touch)


@torch.no_grad()
def _tangency(
    lower: Tensor, upper: Tensor, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
) -> Tensor:
    """A point in [0, u] whose tangent passes (lower, f(lower)) or above it, by bisection from the sound side."""
    left, right = torch.zeros_like(upper), upper.clamp(min=0)
    target = function(lower)
    for _ in range(30):
        middle = (left + right) / 2
        above = function(middle) + derivative(middle) * (lower - middle) >= target
        left, right = torch.where(above, left, middle), torch.where(above, middle, right)
    return right
