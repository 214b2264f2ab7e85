"""Element-wise functions: (leaky) ReLU by the zonotope's relaxation, the others between two parallel lines."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastbound.domains import functions
from fastbound.domains.checks import require_defined
from fastbound.domains.records import Elementwise
from fastbound.domains.rules import read_by, rule
from fastbound.domains.zonotope.relaxations import find_relaxation, relu_cover
from fastbound.domains.zonotope.value import Zonotope, relaxation_bounds, relaxed
from fastbound.shapes import Function


@read_by(Zonotope)
def elementwise(input: Zonotope, function: Function, name: str) -> Zonotope:
    """A relaxation that covers an unstable ReLU by constants does so with every function."""
    lower, upper = relaxation_bounds(input)
    require_defined(function, name, lower, upper)
    flat = find_relaxation(input.terms.plan.relaxation).flat
    cover = function.flat_cover(lower, upper) if flat else function.cover(lower, upper)
    return relaxed(input, function.value, *cover, Elementwise(function, name))


@rule(Zonotope, torch.relu)
def relu(input: Zonotope) -> Zonotope:
    slope, offset = relu_cover(find_relaxation(input.terms.plan.relaxation), *relaxation_bounds(input))
    return relaxed(input, torch.relu, slope, offset, offset, Elementwise(functions.relu(), "torch.relu"))


@rule(Zonotope, F.leaky_relu)
def leaky_relu(input: Zonotope, negative_slope: float = 0.01) -> Zonotope:
    """Relaxed as ``a x + (1 - a) relu(x)``; 1 - a may be negative."""
    slope, offset = relu_cover(find_relaxation(input.terms.plan.relaxation), *relaxation_bounds(input))
    rest = 1 - negative_slope
    return relaxed(
        input,
        lambda x: F.leaky_relu(x, negative_slope),
        negative_slope + rest * slope,
        rest * offset,
        abs(rest) * offset,
        Elementwise(functions.leaky_relu(negative_slope), "torch.nn.functional.leaky_relu"),
    )
