"""Interval bounds of a 2-D convolution with zero padding: `interval_linear` with a convolution as the product.

``c' = conv(c, W) + b``, ``r' = conv(r, |W|)``; backward as in `interval_linear` with the convolution's gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from fastbound.primitives import PRODUCT_DTYPES as DTYPES  # noqa: F401
from fastbound.primitives import Gradients, Pair
from fastbound.reference.interval_linear import signed_sum


def interval_conv2d_fwd(
    stack: Tensor,  # [N, B, C, H, W]
    radius: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [O, C / groups, KH, KW]
    bias: Tensor | None,  # [O]
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> tuple[Tensor, Tensor]:  # [N, B, O, H', W'], [B, O, H', W']
    values = F.conv2d(stack.flatten(0, 1), weight, bias, stride, padding, dilation, groups)
    return (
        values.unflatten(0, stack.shape[:2]),
        F.conv2d(radius, weight.abs(), None, stride, padding, dilation, groups),
    )


def interval_conv2d_bwd(
    grad_stack: Tensor | None,  # [N, B, O, H', W']
    grad_radius: Tensor | None,  # [B, O, H', W']
    stack: Tensor,  # [N, B, C, H, W]
    radius: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [O, C / groups, KH, KW]
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    geometry = (stride, padding, dilation, groups)
    d_stack = d_radius = d_weight = d_bias = None
    if grad_stack is not None:
        grad = grad_stack.flatten(0, 1)
        if needs[0]:
            shape = stack.flatten(0, 1).shape
            d_stack = conv2d_input(shape, weight, grad, *geometry).unflatten(0, stack.shape[:2])
        if needs[2]:
            d_weight = conv2d_weight(stack.flatten(0, 1), weight.shape, grad, *geometry)
        d_bias = grad.sum((0, 2, 3)) if needs[3] else None
    if grad_radius is not None:
        if needs[1]:
            d_radius = conv2d_input(radius.shape, weight.abs(), grad_radius, *geometry)
        if needs[2]:
            product = conv2d_weight(radius, weight.shape, grad_radius, *geometry)
            d_weight = signed_sum(d_weight, product, weight)
    return d_stack, d_radius, d_weight, d_bias


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``interval_conv2d_fwd``: weights of both signs with exact zeros."""

    def make(
        shape: tuple[int, ...],
        outputs: int,
        kernel: Pair,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        streams: int = 2,
        bias: bool = True,
        channels_last: bool = False,
    ) -> tuple[Any, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).to(device)

        weight = normal(outputs, shape[1] // groups, *kernel)
        weight[torch.rand(weight.shape, generator=generator).to(device) < 0.1] = 0
        stack, radius = normal(streams, *shape), normal(*shape).abs()
        if channels_last:
            stack = stack.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (streams, shape[0]))
            radius = radius.contiguous(memory_format=torch.channels_last)
        return stack, radius, weight, normal(outputs) if bias else None, stride, padding, dilation, groups

    return [
        ("plain", make((2, 3, 6, 7), 4, (3, 3))),
        ("channels last", make((2, 4, 6, 5), 8, (3, 3), padding=(1, 1), channels_last=True)),
        ("one channel", make((3, 1, 8, 8), 2, (4, 4), stride=(2, 2))),
        ("strided, padded", make((2, 5, 9, 8), 3, (4, 3), stride=(2, 3), padding=(1, 2), bias=False)),
        ("dilated", make((1, 2, 9, 9), 3, (3, 2), dilation=(2, 3))),
        ("grouped", make((2, 6, 5, 5), 9, (3, 3), padding=(1, 1), groups=3)),
        ("depthwise", make((2, 4, 5, 5), 4, (3, 3), groups=4, streams=1)),
        ("one by one", make((2, 3, 1, 1), 5, (1, 1))),
        ("rows left over", make((1, 2, 8, 8), 2, (3, 3), stride=(3, 3))),
        ("empty batch", make((0, 2, 5, 5), 3, (3, 3))),
        ("grouped, one side of 1", make((2, 4, 5, 5), 4, (3, 1), groups=2)),
    ]
