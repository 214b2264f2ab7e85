"""Element-wise functions with a known Lipschitz constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.interval.minmax import minmax
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.rules import rule

CONSTANTS: dict[Callable[..., Tensor], float] = {
    torch.relu: 1.0,
    F.relu6: 1.0,
    F.hardtanh: 1.0,
    F.softplus: 1.0,
    torch.abs: 1.0,
    torch.tanh: 1.0,
    torch.sigmoid: 0.25,
    minmax: 1.0,  # sorts each pair: two sorted pairs are never further apart than the pairs were
}


def _elementwise(function: Callable[..., Tensor], constant: float) -> Callable[..., Lipschitz]:
    def elementwise(input: Lipschitz, *args: Any, **kwargs: Any) -> Lipschitz:
        return input.through(function(input.nominal, *args, **kwargs), constant)

    return elementwise


for _function, _constant in CONSTANTS.items():
    rule(Lipschitz, _function)(_elementwise(_function, _constant))


@rule(Lipschitz, F.leaky_relu)
def leaky_relu(input: Lipschitz, negative_slope: float = 0.01) -> Lipschitz:
    return input.through(F.leaky_relu(input.nominal, negative_slope), max(1.0, abs(negative_slope)))
