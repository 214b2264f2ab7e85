"""`crown_linear`: the constants that a bias adds to linear functions, whatever library multiplies the rows."""

from __future__ import annotations

from torch import Tensor


def constant(rows: Tensor, bias: Tensor | None) -> Tensor:  # [B, S, *, O], [O] -> [B, S]
    """What the bias adds to each function."""
    if bias is None:
        return rows.new_zeros(rows.shape[:2])
    found = rows @ bias
    return found.flatten(2).sum(2) if found.dim() > 2 else found


def with_constant(
    d_rows: Tensor | None,  # [B, S, *, O]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor,  # [B, S, *, O]
    bias: Tensor | None,  # [O]
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None]:  # [B, S, *, O], [O]
    """The gradient of the rows with what `constant` gives to it, and that of the bias."""
    if grad_bias is None or bias is None:
        return d_rows, None
    wide = grad_bias.view(*grad_bias.shape, *(1,) * (rows.dim() - 2))
    if needs[0]:
        given = (wide * bias).expand(rows.shape)
        d_rows = given if d_rows is None else d_rows + given
    return d_rows, (wide * rows).reshape(-1, rows.shape[-1]).sum(0) if needs[2] else None
