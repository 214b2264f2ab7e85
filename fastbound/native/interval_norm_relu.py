"""`interval_norm_relu` on CPU: one C++ pass over all streams forward, a reducing and an element-wise pass backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPE_CODES, pointer
from fastbound.native import cpu_only as unsupported
from fastbound.native.layout import channel_layout, in_order_of
from fastbound.reference.interval_norm_relu import Gradients

__all__ = ["interval_norm_relu_bwd", "interval_norm_relu_fwd", "interval_norm_relu_statistics", "unsupported"]


def interval_norm_relu_statistics(nominal: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of ``nominal`` [B, C, *]."""
    layout = channel_layout(nominal)
    if layout is None:
        nominal = nominal.contiguous()
        layout = channel_layout(nominal)
    assert layout is not None
    mean, var = nominal.new_empty(2, nominal.shape[1]).unbind(0)
    _C.norm_statistics(
        DTYPE_CODES[nominal.dtype],
        nominal.data_ptr(),
        mean.data_ptr(),
        var.data_ptr(),
        *layout,
        torch.get_num_threads(),
    )
    return mean, var


def interval_norm_relu_fwd(
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C], None: no affine map
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor]:  # [N, B, C, *], [B, C, *]
    stack, radius, layout = one_layout(stack, radius, mean is not None)
    scale, shift = affine(mean, var, weight, bias, eps)
    out_stack, out_radius = torch.empty_like(stack), torch.empty_like(radius)
    _C.interval_norm_relu_fwd(
        DTYPE_CODES[radius.dtype],
        stack.data_ptr(),
        radius.data_ptr(),
        pointer(scale),
        pointer(shift),
        out_stack.data_ptr(),
        out_radius.data_ptr(),
        stack.shape[0],
        *layout,
        slope,
        torch.get_num_threads(),
    )
    return out_stack, out_radius


def interval_norm_relu_bwd(
    grad_stack: Tensor | None,  # [N, B, C, *]
    grad_radius: Tensor | None,  # [B, C, *]
    stack: Tensor,  # [N, B, C, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    slope: float,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    norm = (mean, var, weight, bias, eps)
    passes = (_C.interval_norm_relu_bwd_sums, _C.interval_norm_relu_bwd)
    return backward(passes, (), (grad_stack, grad_radius), stack, radius, norm, slope, batch_statistics, needs)


def backward(
    passes: tuple[Callable[..., None], Callable[..., None]],
    more: tuple[int, ...],
    grads: tuple[Tensor | None, Tensor | None],
    stack: Tensor,
    radius: Tensor,
    norm: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, float],
    slope: float,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    """The gradients by a pass that sums and a pass over the elements; `more` are pointers that both take besides."""
    grad_stack, grad_radius = grads
    mean, var, weight, bias, eps = norm
    stack, radius, layout = one_layout(stack, radius, mean is not None)
    grad_stack = torch.zeros_like(stack) if grad_stack is None else in_order_of(grad_stack, stack)
    grad_radius = None if grad_radius is None else in_order_of(grad_radius, radius)
    scale, shift = affine(mean, var, weight, bias, eps)
    code, streams, threads = DTYPE_CODES[radius.dtype], stack.shape[0], torch.get_num_threads()
    maps = (grad_stack.data_ptr(), pointer(grad_radius), *more, stack.data_ptr(), radius.data_ptr())
    nominal_mul = nominal_add = d_weight = d_bias = None
    if mean is not None and var is not None and scale is not None and (batch_statistics or needs[2] or needs[3]):
        moment, total = mean.new_empty(2, mean.shape[0]).unbind(0)
        sums = (moment.data_ptr(), total.data_ptr())
        passes[0](code, *maps, scale.data_ptr(), pointer(shift), *sums, streams, *layout, slope, threads)
        inverse = torch.rsqrt(var + eps)
        covariance = moment - mean * total
        d_weight, d_bias = covariance * inverse if needs[2] else None, total if needs[3] else None
        if batch_statistics:
            count = radius.numel() // max(radius.shape[1], 1)
            nominal_mul = -scale * covariance * inverse.square() / count
            nominal_add = -scale * total / count - mean * nominal_mul
    d_stack, d_radius = torch.empty_like(stack), torch.empty_like(radius)
    passes[1](
        code,
        *maps,
        pointer(scale),
        pointer(shift),
        pointer(nominal_mul),
        pointer(nominal_add),
        d_stack.data_ptr(),
        d_radius.data_ptr(),
        streams,
        *layout,
        slope,
        threads,
    )
    return d_stack, d_radius, d_weight, d_bias


def affine(
    mean: Tensor | None, var: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor | None, Tensor | None]:  # [C], [C]
    """The affine map of a BatchNorm as scale and shift; None twice where there is none."""
    if mean is None or var is None:
        return None, None
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    return scale, torch.addcmul(-mean * scale if bias is None else bias, mean, scale, value=0 if bias is None else -1)


def one_layout(stack: Tensor, radius: Tensor, channels: bool) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    """Both maps in one dense memory order, and that order as (outer, C, inner); without channels it is flat."""
    if radius.dim() < 2:
        return stack.contiguous(), radius.contiguous(), (1, 1, radius.numel())
    layout = channel_layout(radius)
    if layout is None or not _stacked_like(stack, radius):
        radius = radius.contiguous()
        stack = stack.contiguous()
        layout = channel_layout(radius)
    assert layout is not None
    return stack, radius, layout if channels else (1, 1, radius.numel())


def _stacked_like(stack: Tensor, radius: Tensor) -> bool:
    return stack.shape[0] > 0 and stack[0].stride() == radius.stride() and stack.stride(0) == radius.numel()
