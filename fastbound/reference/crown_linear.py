"""Linear functions of ``x W^T + b`` as linear functions of x: ``rows W``, and the bias ``rows . b``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import PRODUCT_DTYPES as DTYPES  # noqa: F401
from fastbound.primitives import Gradients, as_rows
from fastbound.primitives.crown_linear import constant, with_constant


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
        d_rows = grad_rows @ weight.T if needs[0] else None
        d_weight = as_rows(rows).T @ as_rows(grad_rows) if needs[1] else None
    d_rows, d_bias = with_constant(d_rows, grad_bias, rows, bias, needs)
    return d_rows, d_weight, d_bias


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
        ("empty sequence", make((2, 3, 0), 5, 6)),
        ("no features", make((2, 3), 4, 0)),
        ("no outputs", make((2, 3), 0, 4)),
    ]
