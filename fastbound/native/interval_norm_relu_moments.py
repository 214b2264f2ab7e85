"""`interval_norm_relu_moments`: the passes of `interval_norm_relu`, which also compute moments and their gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPES, HALVES, in_compute_dtype
from fastbound.native import maps_on_cpu_and_cuda as unsupported
from fastbound.native.interval_norm_relu import affine, backward, interval_norm_relu_bwd, one_layout
from fastbound.primitives import Gradients

__all__ = ["DTYPES", "interval_norm_relu_moments_bwd", "interval_norm_relu_moments_fwd", "unsupported"]


def interval_norm_relu_moments_fwd(
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C], None: no affine map
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, B, C, *], [B, C, *], [8]: float32 if maps are in half precision
    stack, radius, layout = one_layout(stack, radius, mean is not None)
    scale, shift = affine(mean, var, weight, bias, eps)
    out_stack, out_radius = torch.empty_like(stack), torch.empty_like(radius)
    moments = radius.new_empty(8, dtype=torch.float32 if radius.dtype in HALVES else None)
    numbers, outputs = (*layout, stack.shape[0], slope), (out_stack, out_radius, moments)
    _C.interval_norm_relu_moments_fwd(*numbers, stack, radius, scale, shift, *outputs)
    return out_stack, out_radius, moments


def interval_norm_relu_moments_bwd(
    grad_stack: Tensor | None,  # [N, B, C, *]
    grad_radius: Tensor | None,  # [B, C, *]
    grad_moments: Tensor | None,  # [8]
    stack: Tensor,  # [N, B, C, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    moments: Tensor,  # [8]
    eps: float,
    slope: float,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    norm = (mean, var, weight, bias, eps)
    if grad_moments is None:
        return interval_norm_relu_bwd(grad_stack, grad_radius, stack, radius, *norm, slope, batch_statistics, needs)
    more, grads = tuple(in_compute_dtype(t) for t in (grad_moments, moments)), (grad_stack, grad_radius)
    passes = (_C.interval_norm_relu_moments_bwd_sums, _C.interval_norm_relu_moments_bwd)
    return backward(passes, more, grads, stack, radius, norm, slope, batch_statistics, needs)
