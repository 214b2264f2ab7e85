"""`singleprop_norm_relu` on CPU: one C++ pass over both maps forward, a reducing and an element-wise pass backward."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPE_CODES, pointer
from fastbound.native import cpu_only as unsupported
from fastbound.native.interval_norm_relu import affine
from fastbound.native.layout import channel_layout, in_order_of
from fastbound.reference.singleprop_norm_relu import VARIANTS, Gradients

__all__ = ["singleprop_norm_relu_bwd", "singleprop_norm_relu_fwd", "unsupported"]

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
    _C.singleprop_norm_relu_fwd(
        DTYPE_CODES[radius.dtype],
        nominal.data_ptr(),
        radius.data_ptr(),
        pointer(scale),
        pointer(shift),
        out_nominal.data_ptr(),
        out_radius.data_ptr(),
        *layout,
        ACTIVATIONS.index(variant),
        torch.get_num_threads(),
    )
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
    scale, shift = affine(mean, var, weight, bias, eps)
    scaling = (pointer(scale), pointer(shift))
    code, rest = DTYPE_CODES[radius.dtype], (*layout, ACTIVATIONS.index(variant), torch.get_num_threads())
    maps = (grad_nominal.data_ptr(), grad_radius.data_ptr(), nominal.data_ptr(), radius.data_ptr())
    nominal_mul = nominal_add = d_weight = d_bias = None
    if mean is not None and var is not None and scale is not None and (batch_statistics or needs[2] or needs[3]):
        moment, total = mean.new_empty(2, mean.shape[0]).unbind(0)
        _C.singleprop_norm_relu_bwd_sums(code, *maps, *scaling, moment.data_ptr(), total.data_ptr(), *rest)
        inverse = torch.rsqrt(var + eps)
        covariance = moment - mean * total
        d_weight, d_bias = covariance * inverse if needs[2] else None, total if needs[3] else None
        if batch_statistics:
            count = radius.numel() // max(radius.shape[1], 1)
            nominal_mul = -scale * covariance * inverse.square() / count
            nominal_add = -scale * total / count - mean * nominal_mul
    d_nominal, d_radius = torch.empty_like(nominal), torch.empty_like(radius)
    statistics = (pointer(nominal_mul), pointer(nominal_add))
    _C.singleprop_norm_relu_bwd(code, *maps, *scaling, *statistics, d_nominal.data_ptr(), d_radius.data_ptr(), *rest)
    return d_nominal, d_radius, d_weight, d_bias


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
