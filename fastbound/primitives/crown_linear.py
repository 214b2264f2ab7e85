"""`crown_linear`: the constants that a bias adds to linear functions, whichever library multiplies the rows."""

from __future__ import annotations

from torch import Tensor

from fastbound.primitives import as_rows


def constant(rows: Tensor, bias: Tensor | None) -> Tensor:  # [B, S, *, O], [O] -> [B, S]
    """The constant that the bias adds to each function."""
    if bias is None:
        return rows.new_zeros(rows.shape[:2])
    products = rows @ bias
    return products.flatten(2).sum(2) if products.dim() > 2 else products


def with_constant(
    d_rows: Tensor | None,  # [B, S, *, O]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor,  # [B, S, *, O]
    bias: Tensor | None,  # [O]
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None]:  # [B, S, *, O], [O]
    """The gradient of the rows including its part from `constant`, and the gradient of the bias."""
    if grad_bias is None or bias is None:
        return d_rows, None
    wide = grad_bias.view(*grad_bias.shape, *(1,) * (rows.dim() - 2))
    if needs[0]:
        from_constant = (wide * bias).expand(rows.shape)
        d_rows = from_constant if d_rows is None else d_rows + from_constant
    return d_rows, as_rows(wide * rows).sum(0) if needs[2] else None
