"""`crown_linear` on CPU: matrix products of all rows of all samples at once."""

from __future__ import annotations

from torch import Tensor

from fastbound.native import product_on_cpu as unsupported
from fastbound.native.product import linear
from fastbound.primitives import PRODUCT_DTYPES as DTYPES
from fastbound.primitives import Gradients, as_rows
from fastbound.primitives.crown_linear import constant, with_constant

__all__ = ["DTYPES", "crown_linear_bwd", "crown_linear_fwd", "unsupported"]


def crown_linear_fwd(
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
) -> tuple[Tensor, Tensor]:  # [B, S, *, I], [B, S]
    return linear(rows, weight.T), constant(rows, bias)


def crown_linear_bwd(
    grad_rows: Tensor | None,  # [B, S, *, I]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
    needs: tuple[bool, bool, bool],
) -> Gradients:
    d_rows = d_weight = None
    if grad_rows is not None:
        d_rows = linear(grad_rows, weight) if needs[0] else None
        d_weight = linear(as_rows(rows).T, as_rows(grad_rows).T) if needs[1] else None
    d_rows, d_bias = with_constant(d_rows, grad_bias, rows, bias, needs)
    return d_rows, d_weight, d_bias
