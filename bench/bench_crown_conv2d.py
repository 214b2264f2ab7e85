"""`crown_conv2d` against the plain convolution in the default layout, on as many maps as there are rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.nn.functional as F

import fastbound as fb
from bench.passes import forward_backward, leaf
from fastbound.ops import crown_conv2d

SHAPES = [(16, 9, 32, 32, 16, 3, 1, 1), (16, 1, 32, 32, 16, 3, 1, 1), (64, 1, 16, 1, 28, 4, 2, 0)]


@pytest.mark.parametrize("variant", ["plain", "reference", "native"])
@pytest.mark.parametrize("batch, rows, outputs, channels, size, kernel, stride, padding", SHAPES)
def test_crown_conv2d(
    measure: Callable[..., None],
    batch: int,
    rows: int,
    outputs: int,
    channels: int,
    size: int,
    kernel: int,
    stride: int,
    padding: int,
    variant: str,
) -> None:
    group = f"crown_conv2d {batch}x{rows}, {channels}x{size}x{size} -> {outputs}, {kernel}x{kernel}/{stride}"
    weight, bias = leaf(outputs, channels, kernel, kernel), leaf(outputs)
    geometry = ((stride, stride), (padding, padding))
    if variant == "plain":
        x = leaf(batch * rows, channels, size, size)
        return measure(group, forward_backward, F.conv2d, x, weight, bias, *geometry)
    reached = (size + 2 * padding - kernel) // stride + 1
    coefficients = leaf(batch, rows, outputs, reached, reached)
    with fb.use_backend(variant):
        measure(group, forward_backward, crown_conv2d, coefficients, weight, bias, (size, size), *geometry)
