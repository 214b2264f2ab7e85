"""Element-wise functions: the constant is the largest slope."""

from __future__ import annotations

import math

from fastbound.domains.interval.minmax import minmax
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import read_by, rule
from fastbound.shapes import Function


@read_by(Lipschitz)
def elementwise(input: Lipschitz, function: Function, name: str) -> Lipschitz:
    if function.lipschitz == math.inf:
        raise NotImplementedError(
            f"{name}{module_path()} in a Lipschitz network: its slope is unbounded, so it has no Lipschitz "
            "constant; use a function that has one, such as ReLU, tanh or fastbound.nn.MinMax."
        )
    return input.mapped_to(function.value(input.nominal), function.lipschitz)


@rule(Lipschitz, minmax)
def sorted_pairs(input: Lipschitz) -> Lipschitz:
    """Sorting two pairs never increases their distance."""
    return input.mapped_to(minmax(input.nominal))
