"""`interval_conv2d` in Triton: implicit matrix products on channels_last maps, one launch for all streams.

Maps in another order are copied; the results are channels_last. The input gradient takes one launch for each residue
of a pixel modulo the stride, so that no inserted zero is multiplied.
"""

from __future__ import annotations

from torch import Tensor

from fastbound.kernels._convolution import Geometry, Pair, convolve, convolve_transposed, weight_gradient
from fastbound.kernels._maps import dense, innermost, outermost, require_groups, require_streams, weight_rows
from fastbound.kernels._support import DTYPES, unsupported

__all__ = ["DTYPES", "interval_conv2d_bwd", "interval_conv2d_fwd", "unsupported"]

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


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
    require_streams("interval_conv2d", stack)
    require_groups("interval_conv2d", weight, groups)
    geometry = Geometry(stride, padding, dilation, groups)
    bias = None if bias is None else dense(bias)
    values, widths = convolve(innermost(stack), innermost(radius), weight_rows(weight), bias, None, geometry)
    assert widths is not None
    return outermost(values), outermost(widths)


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
    if grad_stack is None and grad_radius is None:
        return None, None, None, None
    if grad_stack is None:  # the kernels always read a center; only a loss of nothing but widths gives it no gradient
        assert grad_radius is not None
        grad_stack = grad_radius.new_zeros(stack.shape[0], *grad_radius.shape)
    geometry = Geometry(stride, padding, dilation, groups)
    grads, wide = innermost(grad_stack), None if grad_radius is None else innermost(grad_radius)
    kernel = weight_rows(weight)
    d_stack = d_radius = d_weight = d_bias = None
    if needs[0] or needs[1]:
        size = (stack.shape[3], stack.shape[4])
        d_stack, d_radius, _ = convolve_transposed(grads, wide, kernel, None, size, geometry)
        d_stack = outermost(d_stack)
        d_radius = None if d_radius is None else outermost(d_radius)
    if needs[2]:
        read_radius = None if wide is None else innermost(radius)
        d_weight = outermost(weight_gradient(grads, wide, innermost(stack), read_radius, kernel, geometry))
    if needs[3]:
        d_bias = grads.flatten(0, -2).sum(0)
    return d_stack, d_radius, d_weight, d_bias
