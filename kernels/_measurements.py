"""Which products Triton serves by default: those that were measured to be faster than the library on the card.

The library is cuDNN and cuBLAS on stacked streams. A row of a card's table has ``measured: null`` until
`bench/gpu/tune.py` has run on such a card; afterwards, for each primitive, the median times of both in milliseconds:

    "measured": {"interval_conv2d": {"triton_ms": 0.21, "library_ms": 0.34}}

In a shape class, Triton serves a primitive if product and weight gradient together take less time (for power
iterations, the product alone).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastbound.kernels._configurations import card_of, shape_class, table
from fastbound.kernels._precision import HALF, product_precision

INTERVAL = ("interval_product", "interval_weight_gradient")
ROWS = ("rows_product", "rows_weight_gradient")
# The kernels of each primitive by the dimensions of its weight, and the position of that weight in `backends.find`.
STEMS = {
    "interval_linear": {2: INTERVAL},
    "interval_conv2d": {4: INTERVAL},
    "crown_linear": {2: ROWS},
    "crown_conv2d": {4: ROWS},
    "lipschitz_power": {2: ("power_linear",), 3: ("power_conv2d",), 4: ("power_conv2d",)},
}
WEIGHT_POSITION = {
    "interval_linear": 2,
    "interval_conv2d": 2,
    "crown_linear": 1,
    "crown_conv2d": 1,
    "lipschitz_power": 1,
}


def triton_is_faster(stem: str, *tensors: Tensor | None) -> bool:
    """Whether Triton is faster for the tensors given to `backends.find`; False without a measurement."""
    first, weight = tensors[0], tensors[WEIGHT_POSITION[stem]]
    if first is None or weight is None or (first.dtype != torch.float32 and first.dtype not in HALF):
        return False
    precision = product_precision(first.dtype, convolution=weight.dim() > 2)
    return measured_faster(stem, card_of(first.device, interpreted=False), precision, weight.shape)


def measured_faster(stem: str, card: str, precision: str, weight: Sequence[int]) -> bool:
    """Whether Triton is faster for a weight of the shape ``weight``, outputs first."""
    kernels = STEMS[stem].get(len(weight), ())
    rows = [table(card).get(f"{kernel}/{precision}/{shape_class(weight[0])}") for kernel in kernels]
    times = [((row or {}).get("measured") or {}).get(stem) for row in rows]
    if not times or None in times:
        return False
    return sum(time["triton_ms"] for time in times) < sum(time["library_ms"] for time in times)
