"""`crown_linear` in Triton: ``rows W`` and the bias ``rows . b`` in one launch."""

from __future__ import annotations

from torch import Tensor

from fastbound.kernels._convolution import LINEAR, convolve, convolve_transposed, weight_gradient
from fastbound.kernels._maps import dense, pixels
from fastbound.kernels._support import DTYPES, unsupported

__all__ = ["DTYPES", "crown_linear_bwd", "crown_linear_fwd", "unsupported"]

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def crown_linear_fwd(
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
) -> tuple[Tensor, Tensor]:  # [B, S, *, I], [B, S]
    lines = _lines(rows)
    bias = None if bias is None else dense(bias)
    out, _, constant = convolve_transposed(lines, None, pixels(weight), bias, (1, lines.shape[3]), LINEAR)
    out = out.view(*rows.shape[:-1], weight.shape[1])
    return out, rows.new_zeros(rows.shape[:2]) if constant is None else constant.view(rows.shape[:2])


def crown_linear_bwd(
    grad_rows: Tensor | None,  # [B, S, *, I]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
    needs: tuple[bool, bool, bool],
) -> Gradients:
    d_rows = d_weight = d_bias = None
    if grad_bias is None or bias is None:
        grad_bias = bias = None
    else:
        grad_bias, bias = dense(grad_bias), dense(bias)
    if grad_rows is not None:
        grads = _lines(grad_rows)
        if needs[0]:
            scale = None if grad_bias is None else grad_bias.flatten()
            d_rows = convolve(grads, None, pixels(weight), bias, scale, LINEAR)[0].view(rows.shape)
        if needs[1]:
            d_weight = weight_gradient(_lines(rows), None, grads, None, pixels(weight), LINEAR).view(weight.shape)
    elif needs[0] and grad_bias is not None:
        wide = grad_bias.view(*grad_bias.shape, *(1,) * (rows.dim() - 2))
        d_rows = (wide * bias).expand(rows.shape)
    if needs[2] and grad_bias is not None:
        d_bias = grad_bias.flatten() @ _lines(rows).sum((0, 2, 3))
    return d_rows, d_weight, d_bias


def _lines(rows: Tensor) -> Tensor:  # [B, S, *, F] -> [1, B S, 1, L, F]
    """Each row as a map of one line: the dimensions that a linear layer does not change are its pixels."""
    batch, length = rows.shape[:2].numel(), rows.shape[2:-1].numel()
    return dense(rows.reshape(1, batch, 1, length, rows.shape[-1]))
