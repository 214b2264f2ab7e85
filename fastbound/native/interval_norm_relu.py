"""`interval_norm_relu`: one C++ or CUDA pass over all streams forward, a reducing and an element-wise one backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPES, HALVES, in_compute_dtype
from fastbound.native import maps_on_cpu_and_cuda as unsupported
from fastbound.native.layout import channel_layout, in_order_of
from fastbound.primitives import Gradients, batch_norm

__all__ = ["DTYPES", "interval_norm_relu_bwd", "interval_norm_relu_fwd", "interval_norm_relu_statistics", "unsupported"]

Passes = tuple[Callable[..., None], Callable[..., None]]


def interval_norm_relu_statistics(nominal: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of ``nominal`` [B, C, *]; float32 for maps of half precision."""
    layout = channel_layout(nominal)
    if layout is None:
        nominal = nominal.contiguous()
        layout = channel_layout(nominal)
    assert layout is not None
    dtype = torch.float32 if nominal.dtype in HALVES else nominal.dtype
    mean, var = nominal.new_empty(2, nominal.shape[1], dtype=dtype).unbind(0)
    _C.norm_statistics(*layout, nominal, mean, var)
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
    _C.interval_norm_relu_fwd(*layout, stack.shape[0], slope, stack, radius, scale, shift, out_stack, out_radius)
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
    passes, grads = (_C.interval_norm_relu_bwd_sums, _C.interval_norm_relu_bwd), (grad_stack, grad_radius)
    return backward(passes, (), grads, stack, radius, norm, slope, batch_statistics, needs)


def backward(
    passes: Passes,
    more: tuple[Tensor | None, ...],
    grads: tuple[Tensor | None, Tensor | None],
    stack: Tensor,
    radius: Tensor,
    norm: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, float],
    slope: float,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    """The gradients, by both `passes`, which also take the tensors `more`."""
    grad_stack, grad_radius = grads
    stack, radius, layout = one_layout(stack, radius, norm[0] is not None)
    grad_stack = torch.zeros_like(stack) if grad_stack is None else in_order_of(grad_stack, stack)
    grad_radius = None if grad_radius is None else in_order_of(grad_radius, radius)
    maps, numbers = (grad_stack, grad_radius, stack, radius), (*layout, stack.shape[0], slope)
    d_stack, d_radius = torch.empty_like(stack), torch.empty_like(radius)
    outputs = (d_stack, d_radius)
    return *outputs, *run_backward_passes(passes, numbers, maps, more, norm, batch_statistics, needs, outputs)


def run_backward_passes(
    passes: Passes,
    numbers: tuple[float, ...],
    maps: tuple[Tensor | None, ...],
    more: tuple[Tensor | None, ...],
    norm: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, float],
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
    outputs: tuple[Tensor, Tensor],  # the last one for a radius [B, C, *]
) -> tuple[Tensor | None, Tensor | None]:  # [C], [C]
    """Runs both passes of a backward, the sums over channels (if needed) and then the one that writes to `outputs`.

    Returns the gradients of weight and bias.
    """
    sums, elementwise = passes
    radius = outputs[1]
    mean, var, weight, bias, eps = norm
    scale, shift = affine(*norm)
    nominal_mul = nominal_add = d_weight = d_bias = None
    if mean is not None and var is not None and scale is not None and (batch_statistics or needs[2] or needs[3]):
        moment, total = scale.new_empty(2, scale.shape[0]).unbind(0)
        sums(*numbers, *maps, scale, shift, *more, moment, total)
        inverse = batch_norm.inverse_deviation(var.to(scale.dtype), eps)
        covariance = moment - mean * total
        d_weight = (covariance * inverse).to(_dtype_of(weight, radius)) if needs[2] else None
        d_bias = total.to(_dtype_of(bias, radius)) if needs[3] else None
        if batch_statistics:
            count = radius.numel() // max(radius.shape[1], 1)
            nominal_mul = -scale * covariance * inverse.square() / count
            nominal_add = -scale * total / count - mean * nominal_mul
    elementwise(*numbers, *maps, scale, shift, *more, nominal_mul, nominal_add, *outputs)
    return d_weight, d_bias


def affine(
    mean: Tensor | None, var: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor | None, Tensor | None]:  # [C], [C]
    """The scale and shift of a BatchNorm, or None and None without statistics."""
    mean, var, weight, bias = (in_compute_dtype(v) for v in (mean, var, weight, bias))
    if mean is None or var is None:
        return None, None
    scale = batch_norm.scale_of(var, weight, eps)
    # addcmul is one kernel instead of two, and may round the shift once instead of twice.
    return scale, -mean * scale if bias is None else torch.addcmul(bias, mean, scale, value=-1)


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


def _dtype_of(vector: Tensor | None, maps: Tensor) -> torch.dtype:
    return maps.dtype if vector is None else vector.dtype
