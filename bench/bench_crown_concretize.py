"""`crown_concretize` against reading the rows once (their sum)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import fastbound as fb
from bench.passes import forward_backward, leaf
from fastbound.ops import crown_concretize

SHAPES = [(128, 9, 784), (32, 9, 3072), (128, 1, 784)]  # batch, rows, inputs


@pytest.mark.parametrize("variant", ["sum", "reference", "native"])
@pytest.mark.parametrize("batch, rows, inputs", SHAPES)
def test_crown_concretize(measure: Callable[..., None], batch: int, rows: int, inputs: int, variant: str) -> None:
    group = f"crown_concretize {batch}x{rows}x{inputs}"
    coefficients = leaf(batch, rows, inputs)
    if variant == "sum":
        return measure(group, forward_backward, torch.sum, coefficients)
    center, radius = torch.randn(batch, inputs), torch.rand(batch, inputs)
    with fb.use_backend(variant):
        measure(group, forward_backward, crown_concretize, coefficients, center, radius)
