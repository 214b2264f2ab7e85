"""`interval_norm_relu` against batch_norm and relu of a plain map, and against a copy of the same three maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

import fastbound as fb
from bench.passes import forward_backward, leaf, streams
from fastbound.ops import interval_norm_relu, interval_norm_relu_statistics

SHAPES = [(32, 16, 32, 32), (32, 64, 16, 16), (128, 512)]


def _plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [B, C, *], [C], [C]
    return F.relu(F.batch_norm(x, None, None, weight, bias, training=True))


def _intervals(stack: Tensor, radius: Tensor, weight: Tensor, bias: Tensor) -> Any:  # [2, B, C, *], [B, C, *], [C]
    mean, var = interval_norm_relu_statistics(stack[0])
    return interval_norm_relu(stack, radius, mean, var, weight, bias, 1e-5, batch_statistics=True)


def _copy(stack: Tensor, radius: Tensor) -> None:
    stack.clone()
    radius.clone()


@pytest.mark.parametrize("variant", ["plain", "copy", "reference", "native"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_interval_norm_relu(measure: Callable[..., None], shape: tuple[int, ...], variant: str) -> None:
    group = f"interval_norm_relu {'x'.join(map(str, shape))}"
    weight, bias = leaf(shape[1]), leaf(shape[1])
    channels_last = len(shape) == 4
    if variant == "plain":
        return measure(group, forward_backward, _plain, leaf(*shape), weight, bias)
    maps = streams(*shape, channels_last=channels_last)
    if variant == "copy":
        return measure(group, _copy, *(m.detach() for m in maps))
    with fb.use_backend(variant):
        measure(group, forward_backward, _intervals, *maps, weight, bias)
