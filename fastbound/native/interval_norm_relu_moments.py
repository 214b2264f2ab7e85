"""`interval_norm_relu_moments` on CPU: the passes of `interval_norm_relu`, which add up and add on while they run."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.native import cpu_only as unsupported
from fastbound.native import launch
from fastbound.native.interval_norm_relu import affine, backward, interval_norm_relu_bwd, one_layout
from fastbound.reference.interval_norm_relu import Gradients

__all__ = ["interval_norm_relu_moments_bwd", "interval_norm_relu_moments_fwd", "unsupported"]


def interval_norm_relu_moments_fwd(
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C], None: no affine map
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, B, C, *], [B, C, *], [8]
    stack, radius, layout = one_layout(stack, radius, mean is not None)
    scale, shift = affine(mean, var, weight, bias, eps)
    out_stack, out_radius, moments = torch.empty_like(stack), torch.empty_like(radius), radius.new_empty(8)
    tensors = (stack, radius, scale, shift, out_stack, out_radius, moments)
    launch("interval_norm_relu_moments_fwd", radius, tensors, (stack.shape[0], *layout, slope))
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
    more, grads = (grad_moments.contiguous(), moments.contiguous()), (grad_stack, grad_radius)
    return backward("interval_norm_relu_moments_bwd", more, grads, stack, radius, norm, slope, batch_statistics, needs)
