"""Which products Triton serves without being asked: those that have measured faster than the library on the card.

The library is cuDNN and cuBLAS on stacked streams. A row of a card's table has ``measured: null`` until somebody has
run `bench/gpu/tune.py` on such a card; afterwards, for each primitive, the median times of both in milliseconds:

    "measured": {"interval_conv2d": {"triton_ms": 0.21, "library_ms": 0.34}}

A primitive goes to Triton in a shape class where product and weight gradient together take less time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.kernels._configurations import card_of, shape_class, table
from fastbound.kernels._precision import HALF, product_precision

# The kernels behind each primitive, and where `backends.find` has its weight.
STEMS = {
    "interval_linear": ("interval_product", "interval_weight_gradient"),
    "interval_conv2d": ("interval_product", "interval_weight_gradient"),
    "crown_linear": ("rows_product", "rows_weight_gradient"),
    "crown_conv2d": ("rows_product", "rows_weight_gradient"),
}
WEIGHT_POSITION = {"interval_linear": 2, "interval_conv2d": 2, "crown_linear": 1, "crown_conv2d": 1}


def triton_is_faster(stem: str, *tensors: Tensor | None) -> bool:
    """The rule for the tensors that `backends.find` is asked for. False without a measurement."""
    first, weight = tensors[0], tensors[WEIGHT_POSITION[stem]]
    if first is None or weight is None or (first.dtype != torch.float32 and first.dtype not in HALF):
        return False
    precision = product_precision(first.dtype, stem.endswith("conv2d"))
    return measured_faster(stem, card_of(first.device, interpreted=False), precision, weight.shape[0])


def measured_faster(stem: str, card: str, precision: str, features: int) -> bool:
    rows = [table(card).get(f"{kernel}/{precision}/{shape_class(features)}") for kernel in STEMS[stem]]
    times = [(row or {}).get("measured") or {} for row in rows]
    if not all(stem in time for time in times):
        return False
    return sum(t[stem]["triton_ms"] for t in times) < sum(t[stem]["library_ms"] for t in times)
