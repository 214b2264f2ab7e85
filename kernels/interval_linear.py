"""`interval_linear` in Triton: one launch for all streams, forward, input gradient and weight gradient."""

from __future__ import annotations

from torch import Tensor

from fastbound.kernels._convolution import LINEAR, convolve, convolve_transposed, weight_gradient
from fastbound.kernels._maps import dense, pixels, require_streams, stacked_pixels
from fastbound.kernels._support import DTYPES, unsupported

__all__ = ["DTYPES", "interval_linear_bwd", "interval_linear_fwd", "unsupported"]

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def interval_linear_fwd(
    stack: Tensor,  # [N, *, I]
    radius: Tensor,  # [*, I]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
) -> tuple[Tensor, Tensor]:  # [N, *, O], [*, O]
    require_streams("interval_linear", stack)
    bias = None if bias is None else dense(bias)
    values, widths = convolve(stacked_pixels(stack), pixels(radius), pixels(weight), bias, None, LINEAR)
    assert widths is not None
    outputs = weight.shape[0]
    return values.view(*stack.shape[:-1], outputs), widths.view(*radius.shape[:-1], outputs)


def interval_linear_bwd(
    grad_stack: Tensor | None,  # [N, *, O]
    grad_radius: Tensor | None,  # [*, O]
    stack: Tensor,  # [N, *, I]
    radius: Tensor,  # [*, I]
    weight: Tensor,  # [O, I]
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    if grad_stack is None and grad_radius is None:
        return None, None, None, None
    if grad_stack is None:  # the kernels always read a center; only a loss of nothing but widths gives it no gradient
        grad_stack = stack.new_zeros(*stack.shape[:-1], weight.shape[0])
    grads, wide = stacked_pixels(grad_stack), None if grad_radius is None else pixels(grad_radius)
    kernel = pixels(weight)
    d_stack = d_radius = d_weight = d_bias = None
    if needs[0] or needs[1]:
        d_stack, d_radius, _ = convolve_transposed(grads, wide, kernel, None, (1, 1), LINEAR)
        d_stack = d_stack.view(stack.shape)
        d_radius = None if d_radius is None else d_radius.view(radius.shape)
    if needs[2]:
        read_radius = None if wide is None else pixels(radius)
        d_weight = weight_gradient(grads, wide, stacked_pixels(stack), read_radius, kernel, LINEAR).view(weight.shape)
    if needs[3]:
        d_bias = grads.flatten(0, -2).sum(0)
    return d_stack, d_radius, d_weight, d_bias
