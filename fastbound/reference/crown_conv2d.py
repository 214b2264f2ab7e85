"""Linear functions of ``conv(x, W) + b`` as linear functions of x: the transposed convolution of the rows.

The bias of a function is ``sum_o b_o sum_pixels rows_o``. Rows count as batch: one product maps all B S of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from fastbound.primitives import PRODUCT_DTYPES as DTYPES  # noqa: F401
from fastbound.primitives import Gradients, Pair


def crown_conv2d_fwd(
    rows: Tensor,  # [B, S, O, H', W']
    weight: Tensor,  # [O, C / groups, KH, KW]
    bias: Tensor | None,  # [O]
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> tuple[Tensor, Tensor]:  # [B, S, C, H, W], [B, S]
    shape = (rows.shape[0] * rows.shape[1], weight.shape[1] * groups, *size)
    out = conv2d_input(shape, weight, rows.flatten(0, 1), stride, padding, dilation, groups)
    constant = rows.new_zeros(rows.shape[:2]) if bias is None else rows.flatten(3).sum(3) @ bias
    return out.unflatten(0, rows.shape[:2]), constant


def crown_conv2d_bwd(
    grad_rows: Tensor | None,  # [B, S, C, H, W]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor,  # [B, S, O, H', W']
    weight: Tensor,  # [O, C / groups, KH, KW]
    bias: Tensor | None,  # [O]
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, bool, bool],
) -> Gradients:
    geometry = (stride, padding, dilation, groups)
    d_rows = d_weight = d_bias = None
    if grad_rows is not None:
        grad = grad_rows.flatten(0, 1)
        if needs[0]:
            d_rows = F.conv2d(grad, weight, None, *geometry).unflatten(0, rows.shape[:2])
        if needs[1]:
            d_weight = conv2d_weight(grad, weight.shape, rows.flatten(0, 1), *geometry)
    if grad_bias is not None and bias is not None:
        if needs[0]:
            constant = (grad_bias.unsqueeze(2) * bias)[..., None, None].expand(rows.shape)
            d_rows = constant if d_rows is None else d_rows + constant
        d_bias = (grad_bias.unsqueeze(2) * rows.flatten(3).sum(3)).sum((0, 1)) if needs[2] else None
    return d_rows, d_weight, d_bias


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``crown_conv2d_fwd``; ``size`` is that of the convolution's input."""

    def make(
        batch: Pair,
        channels: int,
        size: Pair,
        outputs: int,
        kernel: Pair,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        bias: bool = True,
    ) -> tuple[Any, ...]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

        weight = normal(outputs, channels // groups, *kernel)
        like = F.conv2d(normal(1, channels, *size), weight, None, stride, padding, dilation, groups)
        rows = normal(*batch, *like.shape[1:])
        return rows, weight, normal(outputs) if bias else None, size, stride, padding, dilation, groups

    return [
        ("plain", make((2, 3), 3, (6, 7), 4, (3, 3))),
        ("padded", make((2, 2), 4, (6, 5), 8, (3, 3), padding=(1, 1))),
        ("one channel", make((3, 2), 1, (8, 8), 2, (4, 4), stride=(2, 2))),
        ("rows left over", make((1, 2), 2, (8, 9), 2, (3, 3), stride=(3, 4))),
        ("strided, padded", make((2, 1), 5, (9, 8), 3, (4, 3), stride=(2, 3), padding=(1, 2), bias=False)),
        ("dilated", make((1, 2), 2, (9, 9), 3, (3, 2), dilation=(2, 3))),
        ("grouped", make((2, 2), 6, (5, 5), 9, (3, 3), padding=(1, 1), groups=3)),
        ("one by one", make((2, 2), 3, (1, 1), 5, (1, 1))),
        ("empty batch", make((0, 2), 2, (5, 5), 3, (3, 3))),
        ("grouped, one side of 1", make((2, 2), 4, (5, 5), 4, (3, 1), groups=2)),
        ("no rows", make((2, 0), 2, (5, 5), 3, (3, 3))),
    ]
