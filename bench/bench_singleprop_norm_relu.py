"""`singleprop_norm_relu` against batch_norm and relu of a plain map, and against a copy of the same two maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

import fastbound as fb
from bench.passes import forward_backward, leaf
from fastbound.ops import interval_norm_relu_statistics, singleprop_norm_relu

SHAPES = [(32, 16, 32, 32), (32, 64, 16, 16), (128, 512)]


def _plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [B, C, *], [C], [C]
    return F.relu(F.batch_norm(x, None, None, weight, bias, training=True))


def _pass(variant: str) -> Callable[..., Any]:
    def run(nominal: Tensor, radius: Tensor, weight: Tensor, bias: Tensor) -> Any:  # twice [B, C, *], twice [C]
        mean, var = interval_norm_relu_statistics(nominal)
        return singleprop_norm_relu(nominal, radius, mean, var, weight, bias, 1e-5, variant, batch_statistics=True)

    return run


def _copy(nominal: Tensor, radius: Tensor) -> None:
    nominal.clone()
    radius.clone()


@pytest.mark.parametrize("backend", ["plain", "copy", "reference", "native"])
@pytest.mark.parametrize("variant", ["zero", "fast-lin"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singleprop_norm_relu(measure: Callable[..., None], shape: tuple[int, ...], variant: str, backend: str) -> None:
    group = f"singleprop_norm_relu {variant} {'x'.join(map(str, shape))}"
    weight, bias = leaf(shape[1]), leaf(shape[1])
    channels_last = len(shape) == 4
    if backend == "plain":
        return measure(group, forward_backward, _plain, leaf(*shape), weight, bias)
    maps = [leaf(*shape, channels_last=channels_last) for _ in range(2)]
    maps[1] = maps[1].detach().abs().requires_grad_()
    if backend == "copy":
        return measure(group, _copy, *(m.detach() for m in maps))
    with fb.use_backend(backend):
        measure(group, forward_backward, _pass(variant), *maps, weight, bias)
