"""`crown_conv2d` on CPU: oneDNN's convolutions on channels_last maps, all rows of all samples as one batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.native import product_on_cpu as unsupported
from fastbound.native.crown_windows import fold_convolution
from fastbound.native.layout import as_channels_last, as_convolved
from fastbound.primitives import PRODUCT_DTYPES as DTYPES
from fastbound.primitives import Gradients, Pair

__all__ = ["DTYPES", "crown_conv2d_bwd", "crown_conv2d_fwd", "unsupported"]


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
    constant = rows.new_zeros(rows.shape[:2]) if bias is None else rows.flatten(3).sum(3) @ bias
    if weight.shape[1] <= 2 and groups == 1 and rows.numel() > 0 and rows.element_size() > 2:
        out = fold_convolution(rows.flatten(0, 1), weight, size, stride, padding, dilation)
        return out.unflatten(0, rows.shape[:2]), constant
    grad = as_channels_last(rows.flatten(0, 1))
    # Only the shape and the memory order of the input matter for its gradient; its values are never read.
    shape = (grad.shape[0], weight.shape[1] * groups, *size)
    like = torch.empty(shape, dtype=rows.dtype, memory_format=torch.channels_last)
    geometry = (stride, padding, dilation, False, [0, 0], groups)
    out, _, _ = torch.ops.aten.convolution_backward(grad, like, weight, None, *geometry, (True, False, False))
    return as_channels_last(out).unflatten(0, rows.shape[:2]), constant


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
    d_rows = d_weight = d_bias = None
    if grad_rows is not None:
        grad = as_channels_last(grad_rows.flatten(0, 1))
        if needs[0]:
            d_rows = F.conv2d(as_convolved(grad, stride), weight, None, stride, padding, dilation, groups).unflatten(
                0, rows.shape[:2]
            )
        if needs[1]:
            flat = as_channels_last(rows.flatten(0, 1))
            geometry = (stride, padding, dilation, False, [0, 0], groups)
            _, d_weight, _ = torch.ops.aten.convolution_backward(
                flat, grad, weight, None, *geometry, (False, True, False)
            )
    if grad_bias is not None and bias is not None:
        if needs[0]:
            constant = (grad_bias.unsqueeze(2) * bias)[..., None, None].expand(rows.shape)
            d_rows = constant if d_rows is None else d_rows + constant
        d_bias = (grad_bias.unsqueeze(2) * rows.flatten(3).sum(3)).sum((0, 1)) if needs[2] else None
    return d_rows, d_weight, d_bias
