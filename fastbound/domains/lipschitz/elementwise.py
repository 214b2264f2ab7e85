"""Element-wise functions: the constant is the largest slope."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastbound.domains.interval.minmax import minmax
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import Entry, read_by, rule


@read_by(Lipschitz)
def elementwise(make_function: Entry, name: str) -> Callable[..., Lipschitz]:
    def read(input: Lipschitz, *args: Any, **kwargs: Any) -> Lipschitz:
        function = make_function(*args, **kwargs)
        if function.lipschitz == math.inf:
            raise NotImplementedError(
                f"{name}{module_path()} in a Lipschitz network: its slope is unbounded, so it has no Lipschitz "
                "constant; use a function that has one, such as ReLU, tanh or fastbound.nn.MinMax."
            )
        return input.mapped_to(function.value(input.nominal), function.lipschitz)

    return read


@rule(Lipschitz, minmax)
def sorted_pairs(input: Lipschitz) -> Lipschitz:
    """Sorting two pairs never increases their distance."""
    return input.mapped_to(minmax(input.nominal))
