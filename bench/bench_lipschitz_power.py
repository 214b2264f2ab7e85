"""Five iterations of `lipschitz_power` against a training batch through the plain layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from bench.passes import forward_backward, leaf
from fastbound.ops import lipschitz_power

BATCH, ITERATIONS = 128, 5


@pytest.mark.parametrize("variant", ["plain", "automatic"])
@pytest.mark.parametrize("inputs, outputs", [(784, 256), (3136, 512)])
def test_linear(measure: Callable[..., None], inputs: int, outputs: int, variant: str) -> None:
    group, weight = f"lipschitz_power {inputs} -> {outputs}", leaf(outputs, inputs)
    if variant == "plain":
        return measure(group, forward_backward, F.linear, leaf(BATCH, inputs), weight)
    measure(group, lipschitz_power, torch.randn(1, inputs), weight, ITERATIONS)


@pytest.mark.parametrize("variant", ["plain", "automatic"])
@pytest.mark.parametrize("channels, size, outputs, stride", [(1, 28, 16, 2), (64, 32, 64, 1)])
def test_conv2d(
    measure: Callable[..., None], channels: int, size: int, outputs: int, stride: int, variant: str
) -> None:
    group = f"lipschitz_power {channels}x{size}x{size} -> {outputs}, 3x3/{stride}"
    weight, geometry = leaf(outputs, channels, 3, 3), ((stride, stride), (1, 1), (1, 1))
    if variant == "plain":
        return measure(group, forward_backward, F.conv2d, leaf(BATCH, channels, size, size), weight, None, *geometry)
    measure(group, lipschitz_power, torch.randn(1, channels, size, size), weight, ITERATIONS, *geometry)
