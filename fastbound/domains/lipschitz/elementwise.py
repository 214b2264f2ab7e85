"""Element-wise functions by the largest of their slopes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastbound.domains.interval.minmax import minmax
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import Entry, read_by, rule


@read_by(Lipschitz)
def elementwise(made: Entry, name: str) -> Callable[..., Lipschitz]:
    def read(input: Lipschitz, *args: Any, **kwargs: Any) -> Lipschitz:
        function = made(*args, **kwargs)
        if function.lipschitz == math.inf:
            raise NotImplementedError(
                f"{name}{module_path()} in a Lipschitz network: its slope has no limit, and so it has no Lipschitz "
                "constant; use a function that has one, such as ReLU, tanh or fastbound.nn.MinMax."
            )
        return input.through(function.value(input.nominal), function.lipschitz)

    return read


@rule(Lipschitz, minmax)
def sorted_pairs(input: Lipschitz) -> Lipschitz:
    """Two sorted pairs are never further apart than the pairs were."""
    return input.through(minmax(input.nominal))
