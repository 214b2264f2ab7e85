"""`crown_conv2d` in Triton: the transposed convolution of all B S rows and their bias.

One launch for each residue of a pixel modulo the stride; the first also sums the bias. Maps in another order than
channels_last are copied; the results are channels_last.
"""

from __future__ import annotations

from torch import Tensor

from fastbound.kernels._convolution import Geometry, Pair, convolve, convolve_transposed, weight_gradient
from fastbound.kernels._maps import dense, innermost, outermost, require_groups, weight_rows
from fastbound.kernels._support import DTYPES, unsupported

__all__ = ["DTYPES", "crown_conv2d_bwd", "crown_conv2d_fwd", "unsupported"]

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


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
    require_groups("crown_conv2d", weight, groups)
    geometry = Geometry(stride, padding, dilation, groups)
    bias = None if bias is None else dense(bias)
    out, _, constant = convolve_transposed(_maps(rows), None, weight_rows(weight), bias, size, geometry)
    lead = rows.shape[:2]
    return outermost(out[0]).unflatten(0, lead), rows.new_zeros(lead) if constant is None else constant.view(lead)


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
    geometry = Geometry(stride, padding, dilation, groups)
    d_rows = d_weight = d_bias = None
    if grad_bias is None or bias is None:
        grad_bias = bias = None
    else:
        grad_bias, bias = dense(grad_bias), dense(bias)
    if grad_rows is not None:
        grads = _maps(grad_rows)
        if needs[0]:
            scale = None if grad_bias is None else grad_bias.flatten()
            maps, _ = convolve(grads, None, weight_rows(weight), bias, scale, geometry)
            d_rows = outermost(maps[0]).unflatten(0, rows.shape[:2])
        if needs[1]:
            d_weight = outermost(weight_gradient(_maps(rows), None, grads, None, weight_rows(weight), geometry))
    elif needs[0] and grad_bias is not None:
        d_rows = (grad_bias.unsqueeze(2) * bias)[..., None, None].expand(rows.shape)
    if needs[2] and grad_bias is not None:
        d_bias = grad_bias.flatten() @ _maps(rows).sum((0, 2, 3))
    return d_rows, d_weight, d_bias


def _maps(rows: Tensor) -> Tensor:  # [B, S, C, H, W] -> [1, B S, H, W, C]
    return innermost(rows.flatten(0, 1)).unsqueeze(0)
