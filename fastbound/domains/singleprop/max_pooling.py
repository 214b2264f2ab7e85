"""Max-pooling: the radius is half the distance between the pooled z + v and the pooled z - v."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.domains.records import Opaque
from fastbound.domains.rules import function_name, rule
from fastbound.domains.singleprop.value import SingleProp
from fastbound.domains.streams import emit


def _max_pool(function: Callable[..., Tensor]) -> Callable[..., SingleProp]:
    name = function_name(function)

    def max_pool(input: SingleProp, *args: Any, **kwargs: Any) -> SingleProp:
        def pooled(x: Tensor) -> Tensor:
            return function(x, *args, **kwargs)

        nominal, radius = input.nominal, input.radius
        width = (pooled(nominal + radius) - pooled(nominal - radius)) / 2
        record = Opaque(name, module_path())
        return emit(record, (input,), pooled(nominal).unsqueeze(0), width)

    return max_pool


for _function in (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
):
    rule(SingleProp, _function)(_max_pool(_function))
