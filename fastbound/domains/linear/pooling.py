"""Average pooling: linear with coefficients >= 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.linear.shapes import map_batch
from fastbound.domains.location import module_path
from fastbound.domains.rules import rule
from fastbound.domains.streams import Streams


def _avg_pool(function: Callable[..., Tensor]) -> Callable[..., Streams]:
    def avg_pool(input: Streams, *args: Any, **kwargs: Any) -> Streams:
        divisor = kwargs.get("divisor_override", args[5] if len(args) > 5 else None)
        if divisor is not None and divisor < 0:
            raise NotImplementedError(f"average pooling{module_path()}: wanted a positive divisor, got {divisor}.")
        return map_batch(input, lambda x: function(x, *args, **kwargs), function.__name__)

    return avg_pool


for _average in (
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
):
    rule(Streams, _average)(_avg_pool(_average))
