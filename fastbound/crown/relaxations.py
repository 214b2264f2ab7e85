"""Two lines around each non-linear function on an interval: ``slope_l z + offset_l <= f(z) <= slope_u z + offset_u``.

ReLU has its own fused primitive, `crown_relu`; the lines here serve the other element-wise functions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.crown.relu_family import FAMILY, family_lines
from fastbound.primitives.crown_relu import RELAXATIONS
from fastbound.primitives.crown_relu import lines as relu_lines
from fastbound.shapes import Function, Hinge, Ramp


class Lines(NamedTuple):
    """Slopes and offsets [B, *] of the lower and the upper line."""

    lower_slope: Tensor
    lower_offset: Tensor | None  # None: 0
    upper_slope: Tensor
    upper_offset: Tensor


def lines(function: Function, center: Tensor, radius: Tensor, relaxation: str) -> Lines:
    """The two lines of an element-wise function on center -+ radius, each [B, *].

    The relaxation selects the lines of a ReLU, a leaky ReLU or a clamp; every other function has a single pair, with
    the least area between its lines.
    """
    shape = function.shape
    if isinstance(shape, Hinge) and shape.negative_slope >= 0:
        return _leaky_relu(center, radius, shape.negative_slope, relaxation)
    lower, upper = center - radius, center + radius
    if isinstance(shape, Ramp):
        if relaxation in FAMILY:
            raise ValueError(  # not MissingRuleError: properties of a bound may not raise an AttributeError
                f"relaxation: {relaxation!r} has lines for ReLU, none for clamp (hardtanh, relu6); use one of "
                f"{', '.join(RELAXATIONS)}."
            )
        return _ramp(lower, upper, shape, relaxation)
    return Lines(*function.lower_line(lower, upper), *function.upper_line(lower, upper))


def _leaky_relu(center: Tensor, radius: Tensor, slope: float, relaxation: str) -> Lines:
    # leaky_relu(z, a) = -a leaky_relu(-z, 1/a), concave for a > 1, so the lower line becomes the upper one.
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


def _ramp(lower: Tensor, upper: Tensor, shape: Ramp, relaxation: str) -> Lines:
    """Lines around ``clamp(z, low, high)``: each is a chord, or a constant if that is closer.

    The lower chord runs from (max(l, low), max(l, low)) to (u, f(u)). Between them the function rises with slope 1 and
    then stays at f(u), so it lies above the chord; left of the first point it is constant, while the chord falls. The
    upper chord is the mirror image.
    """
    low, high = shape.low, shape.high
    middle = (lower + upper) / 2
    at_lower, at_upper = (x.clamp(min=low).clamp(max=high) for x in (lower, upper))
    start, end = lower.clamp(min=low), upper.clamp(max=high)
    flat = (upper <= low) | (lower >= high)

    def slope(rise: Tensor, run: Tensor) -> Tensor:  # if the run is 0, the end lies on the identity
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
