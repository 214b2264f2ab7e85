"""Element-wise functions: (leaky) ReLU by the zonotope's relaxation, sigmoid and tanh by their least slope."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.records import LeakyReLU, Smooth
from fastbound.domains.rules import rule
from fastbound.domains.zonotope.relaxations import find_relaxation, relu_cover
from fastbound.domains.zonotope.value import Zonotope, covered, ends


@rule(Zonotope, torch.relu)
def relu(input: Zonotope) -> Zonotope:
    slope, offset = relu_cover(find_relaxation(input.terms.plan.relaxation), *ends(input))
    return covered(input, torch.relu, slope, offset, offset, LeakyReLU(0.0))


@rule(Zonotope, F.leaky_relu)
def leaky_relu(input: Zonotope, negative_slope: float = 0.01) -> Zonotope:
    """``a x + (1 - a) relu(x)``, whatever the sign of 1 - a."""
    slope, offset = relu_cover(find_relaxation(input.terms.plan.relaxation), *ends(input))
    rest = 1 - negative_slope
    return covered(
        input,
        lambda x: F.leaky_relu(x, negative_slope),
        negative_slope + rest * slope,
        rest * offset,
        abs(rest) * offset,
        LeakyReLU(float(negative_slope)),
    )


@rule(Zonotope, torch.sigmoid)
def sigmoid(input: Zonotope) -> Zonotope:
    return _smooth(input, torch.sigmoid, lambda y: y * (1 - y), "sigmoid")


@rule(Zonotope, torch.tanh)
def tanh(input: Zonotope) -> Zonotope:
    return _smooth(input, torch.tanh, lambda y: 1 - y * y, "tanh")


def _smooth(
    input: Zonotope, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor], name: str
) -> Zonotope:
    """A function of sigmoid shape minus the smaller of its slopes at the ends still rises, so its ends bound it.

    ``derivative`` is that of the function in terms of its value. Rules that give neurons the slope 0 do so here too.
    Source: Singh et al., 2018, Fast and effective robustness certification, section 4.
    """
    lower, upper = ends(input)
    low, high = function(lower), function(upper)
    flat = find_relaxation(input.terms.plan.relaxation).flat
    slope = torch.zeros_like(low) if flat else torch.minimum(derivative(low), derivative(high))
    offset, width = (low + high - slope * (lower + upper)) / 2, (high - low - slope * (upper - lower)) / 2
    return covered(input, function, slope, offset, width.clamp(min=0), Smooth(name))
