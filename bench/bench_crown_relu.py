"""`crown_relu` against the ReLU of a plain map with as many elements as the rows, and against a copy of the rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fastbound as fb
from bench.passes import forward_backward, leaf
from fastbound.ops import crown_relu

SHAPES = [(32, 9, 16, 32, 32), (32, 1, 16, 32, 32), (128, 9, 256)]  # batch, rows, channels, spatial


def _rows(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:  # [B, S, C, *], [B, C, *], [B, C, *]
    def last(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    batch, count = shape[:2]
    rows = last(torch.randn(batch * count, *shape[2:])).unflatten(0, (batch, count))
    center, radius = last(torch.randn(batch, *shape[2:])), last(torch.rand(batch, *shape[2:]))
    return rows.requires_grad_(), center.requires_grad_(), radius.requires_grad_()


@pytest.mark.parametrize("variant", ["plain", "copy", "reference", "native"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_crown_relu(measure: Callable[..., None], shape: tuple[int, ...], variant: str) -> None:
    group = f"crown_relu {'x'.join(map(str, shape))}"
    if variant == "plain":
        return measure(group, forward_backward, torch.relu, leaf(shape[0] * shape[1], *shape[2:]))
    rows, center, radius = _rows(shape)
    if variant == "copy":
        return measure(group, rows.detach().clone)
    with fb.use_backend(variant):
        measure(group, forward_backward, crown_relu, rows, center, radius)
