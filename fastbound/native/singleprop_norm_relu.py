"""`singleprop_norm_relu`: one C++ or CUDA pass over both maps forward, a reducing and an element-wise one backward."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPES
from fastbound.native import maps_on_cpu_and_cuda as unsupported
from fastbound.native.interval_norm_relu import affine, run_backward_passes
from fastbound.native.layout import channel_layout, in_order_of
from fastbound.primitives import Gradients
from fastbound.primitives.singleprop_norm_relu import VARIANTS

__all__ = ["DTYPES", "singleprop_norm_relu_bwd", "singleprop_norm_relu_fwd", "unsupported"]

ACTIVATIONS = (None, *VARIANTS)


def singleprop_norm_relu_fwd(
    nominal: Tensor,  # [B, C, *], without norm any shape
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C], None: no affine map
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    variant: str | None,
) -> tuple[Tensor, Tensor]:  # [B, C, *], [B, C, *]
    nominal, radius, layout = _one_layout(nominal, radius, mean is not None)
    scale, shift = affine(mean, var, weight, bias, eps)
    out_nominal, out_radius = torch.empty_like(nominal), torch.empty_like(radius)
    numbers = (*layout, ACTIVATIONS.index(variant))
    _C.singleprop_norm_relu_fwd(*numbers, nominal, radius, scale, shift, out_nominal, out_radius)
    return out_nominal, out_radius


def singleprop_norm_relu_bwd(
    grad_nominal: Tensor | None,  # [B, C, *]
    grad_radius: Tensor | None,  # [B, C, *]
    nominal: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    variant: str | None,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    nominal, radius, layout = _one_layout(nominal, radius, mean is not None)
    grad_nominal, grad_radius = (
        torch.zeros_like(radius) if grad is None else in_order_of(grad, radius) for grad in (grad_nominal, grad_radius)
    )
    maps, numbers = (grad_nominal, grad_radius, nominal, radius), (*layout, ACTIVATIONS.index(variant))
    outputs = torch.empty_like(nominal), torch.empty_like(radius)
    norm = (mean, var, weight, bias, eps)
    passes = (_C.singleprop_norm_relu_bwd_sums, _C.singleprop_norm_relu_bwd)
    return *outputs, *run_backward_passes(passes, numbers, maps, (), norm, batch_statistics, needs, outputs)


def _one_layout(
    nominal: Tensor, radius: Tensor, channels: bool
) -> tuple[Tensor, Tensor, tuple[int, int, int]]:  # [B, C, *], [B, C, *]
    """Both maps in one dense memory order, and that order as (outer, C, inner); without channels it is flat."""
    flat = (1, 1, radius.numel())
    if radius.dim() < 2:
        return nominal.contiguous(), radius.contiguous(), flat
    layout = channel_layout(radius)
    if layout is None or nominal.stride() != radius.stride():
        nominal, radius = nominal.contiguous(), radius.contiguous()
        layout = channel_layout(radius)
    assert layout is not None
    return nominal, radius, layout if channels else flat
