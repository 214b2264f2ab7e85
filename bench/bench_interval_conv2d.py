"""`interval_conv2d` against the plain convolution in the default layout, on layers of CNN-7 and DM-small."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.nn.functional as F

import fastbound as fb
from bench.passes import forward_backward, leaf, streams
from fastbound.ops import interval_conv2d

SHAPES = [(32, 16, 32, 16, 3, 1, 1), (32, 64, 16, 64, 3, 1, 1), (32, 32, 16, 64, 3, 2, 1), (64, 16, 13, 32, 4, 1, 0)]


@pytest.mark.parametrize("variant", ["plain", "reference", "native"])
@pytest.mark.parametrize("batch, channels, size, outputs, kernel, stride, padding", SHAPES)
def test_interval_conv2d(
    measure: Callable[..., None],
    batch: int,
    channels: int,
    size: int,
    outputs: int,
    kernel: int,
    stride: int,
    padding: int,
    variant: str,
) -> None:
    group = f"interval_conv2d {batch}x{channels}x{size}x{size} -> {outputs}, {kernel}x{kernel}/{stride}"
    weight, bias = leaf(outputs, channels, kernel, kernel), leaf(outputs)
    shape, geometry = (batch, channels, size, size), ((stride, stride), (padding, padding))
    if variant == "plain":
        return measure(group, forward_backward, F.conv2d, leaf(*shape), weight, bias, *geometry)
    with fb.use_backend(variant):
        measure(group, forward_backward, interval_conv2d, *streams(*shape, channels_last=True), weight, bias, *geometry)
