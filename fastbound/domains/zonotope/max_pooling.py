"""Max-pooling: the interval of the maximum, without error terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.interval.value import Interval
from fastbound.domains.rules import rule
from fastbound.domains.zonotope.value import Zonotope


def _max_pool(function: Callable[..., Tensor]) -> Callable[..., Zonotope]:
    def max_pool(input: Zonotope, *args: Any, **kwargs: Any) -> Zonotope:
        bounds: Any = Interval.from_bounds(input.lower, input.upper, input.nominal)
        pooled: Any = function(bounds, *args, **kwargs)
        return Zonotope.from_bounds(pooled.lower, pooled.upper, pooled.nominal)

    return max_pool


for _function in (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
):
    rule(Zonotope, _function)(_max_pool(_function))
