"""`interval_linear` against the plain layer: hidden layers of the MLP, the first wide layer of a CNN."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.nn.functional as F

import fastbound as fb
from bench.passes import forward_backward, leaf, streams
from fastbound.ops import interval_linear

SHAPES = [(128, 784, 256), (128, 256, 256), (32, 8192, 512)]  # batch, in, out


@pytest.mark.parametrize("variant", ["plain", "reference", "native"])
@pytest.mark.parametrize("batch, features, outputs", SHAPES)
def test_interval_linear(measure: Callable[..., None], batch: int, features: int, outputs: int, variant: str) -> None:
    group = f"interval_linear {batch}x{features}x{outputs}"
    weight, bias = leaf(outputs, features), leaf(outputs)
    if variant == "plain":
        return measure(group, forward_backward, F.linear, leaf(batch, features), weight, bias)
    with fb.use_backend(variant):
        measure(group, forward_backward, interval_linear, *streams(batch, features), weight, bias)
