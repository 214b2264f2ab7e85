"""`crown_linear` against the plain layer on as many rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.nn.functional as F

import fastbound as fb
from bench.passes import forward_backward, leaf
from fastbound.ops import crown_linear

SHAPES = [(128, 9, 256, 784), (128, 1, 256, 784)]  # batch, rows, outputs, inputs


@pytest.mark.parametrize("variant", ["plain", "reference", "native"])
@pytest.mark.parametrize("batch, rows, outputs, inputs", SHAPES)
def test_crown_linear(
    measure: Callable[..., None], batch: int, rows: int, outputs: int, inputs: int, variant: str
) -> None:
    group = f"crown_linear {batch}x{rows}x{outputs} -> {inputs}"
    weight, bias = leaf(outputs, inputs), leaf(outputs)
    if variant == "plain":
        return measure(group, forward_backward, F.linear, leaf(batch * rows, inputs), weight, bias)
    with fb.use_backend(variant):
        measure(group, forward_backward, crown_linear, leaf(batch, rows, outputs), weight, bias)
