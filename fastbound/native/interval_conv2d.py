"""`interval_conv2d` by the library: oneDNN's and cuDNN's convolutions in their fastest memory order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.native import product_on_cpu_and_cuda as unsupported
from fastbound.native.layout import as_convolved
from fastbound.native.signed_weight_grad import signed_weight_grad
from fastbound.primitives import PRODUCT_DTYPES as DTYPES
from fastbound.primitives import Gradients, Pair

__all__ = ["DTYPES", "interval_conv2d_bwd", "interval_conv2d_fwd", "unsupported"]


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
    geometry = (stride, padding, dilation, groups)
    values = F.conv2d(as_convolved(stack.flatten(0, 1), stride), weight, bias, *geometry)
    widths = F.conv2d(as_convolved(radius, stride), weight.abs(), None, *geometry)
    return values.unflatten(0, stack.shape[:2]), widths


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
    def gradients(grad: Tensor, x: Tensor, kernel: Tensor, mask: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        return torch.ops.aten.convolution_backward(
            as_convolved(grad, stride),
            as_convolved(x, stride),
            kernel,
            [kernel.shape[0]],
            *(stride, padding, dilation, False, [0, 0], groups),
            mask,
        )

    d_stack = d_radius = d_weight = d_bias = None
    if grad_stack is not None:
        mask = (needs[0], needs[2], needs[3])
        d_stack, d_weight, d_bias = gradients(grad_stack.flatten(0, 1), stack.flatten(0, 1), weight, mask)
        d_stack = None if d_stack is None else d_stack.unflatten(0, stack.shape[:2])
    if grad_radius is not None:
        d_radius, product, _ = gradients(grad_radius, radius, weight.abs(), (needs[1], needs[2], False))
        if product is not None:
            d_weight = signed_weight_grad(d_weight, product, weight)
    return d_stack, d_radius, d_weight, d_bias
