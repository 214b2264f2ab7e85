"""`crown_linear` on CPU: matrix products of all rows of all samples at once."""

from __future__ import annotations

from torch import Tensor

from fastbound.native import product_on_cpu as unsupported
from fastbound.native.product import linear
from fastbound.reference.crown_linear import DTYPES, Gradients

__all__ = ["DTYPES", "crown_linear_bwd", "crown_linear_fwd", "unsupported"]


def crown_linear_fwd(
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
) -> tuple[Tensor, Tensor]:  # [B, S, *, I], [B, S]
    constant = rows.new_zeros(rows.shape[:2]) if bias is None else rows @ bias
    return linear(rows, weight.T), constant.flatten(2).sum(2) if constant.dim() > 2 else constant


def crown_linear_bwd(
    grad_rows: Tensor | None,  # [B, S, *, I]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
    needs: tuple[bool, bool, bool],
) -> Gradients:
    d_rows = d_weight = d_bias = None
    flat = rows.reshape(-1, rows.shape[-1])
    if grad_rows is not None:
        d_rows = linear(grad_rows, weight) if needs[0] else None
        d_weight = linear(flat.T, grad_rows.reshape(-1, grad_rows.shape[-1]).T) if needs[1] else None
    if grad_bias is not None and bias is not None:
        wide = grad_bias.view(*grad_bias.shape, *(1,) * (rows.dim() - 2))
        if needs[0]:
            constant = (wide * bias).expand(rows.shape)
            d_rows = constant if d_rows is None else d_rows + constant
        d_bias = (wide * rows).reshape(flat.shape).sum(0) if needs[2] else None
    return d_rows, d_weight, d_bias
