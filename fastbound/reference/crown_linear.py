"""Linear functions of ``x W^T + b`` as linear functions of x: ``rows W``, and the bias ``rows . b``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.reference import PRODUCT_DTYPES as DTYPES  # noqa: F401

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def crown_linear_fwd(
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
) -> tuple[Tensor, Tensor]:  # [B, S, *, I], [B, S]
    return rows @ weight, constant(rows, bias)


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
        flat = rows.reshape(-1, rows.shape[-1])
        d_rows = grad_rows @ weight.T if needs[0] else None
        d_weight = flat.T @ grad_rows.reshape(-1, grad_rows.shape[-1]) if needs[1] else None
    d_rows, d_bias = with_constant(d_rows, grad_bias, rows, bias, needs)
    return d_rows, d_weight, d_bias


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


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``crown_linear_fwd``."""

    def make(batch: tuple[int, ...], outputs: int, features: int, bias: bool = True) -> tuple[Any, ...]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

        return normal(*batch, outputs), normal(outputs, features), normal(outputs) if bias else None

    return [
        ("plain", make((3, 4), 5, 7)),
        ("no bias", make((2, 9), 17, 33, bias=False)),
        ("sequence", make((2, 3, 4), 5, 6)),
        ("single", make((1, 1), 1, 1)),
        ("empty batch", make((0, 2), 3, 4)),
    ]
