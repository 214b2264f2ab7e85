"""The least value of linear functions on a box: ``rows . c - |rows| . r`` (Zhang et al., 2018, arXiv 1811.00866)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import Gradients


def crown_concretize_fwd(
    rows: Tensor,  # [B, S, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
) -> Tensor:  # [B, S]
    size = rows.shape[2:].numel()
    matrix = rows.reshape(*rows.shape[:2], size)
    center, radius = (x.reshape(len(x), size, 1) for x in (center, radius))
    return (matrix @ center - matrix.abs() @ radius).squeeze(2)


def crown_concretize_bwd(
    grad: Tensor,  # [B, S]
    rows: Tensor,  # [B, S, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
    needs: tuple[bool, bool, bool],
) -> Gradients:
    wide = grad.view(*grad.shape, *(1,) * (center.dim() - 1))
    d_rows = wide * (center.unsqueeze(1) - rows.sign() * radius.unsqueeze(1)) if needs[0] else None
    d_center = (wide * rows).sum(1) if needs[1] else None
    d_radius = -(wide * rows.abs()).sum(1) if needs[2] else None
    return d_rows, d_center, d_radius


def rounding(rows: Tensor, center: Tensor, radius: Tensor) -> tuple[int, tuple[Tensor, ...]]:
    """The number of rounded operations in an output, and the magnitude of its terms, for the tests."""
    size = center.abs() + radius
    return 8 + 2 * rows[:1, :1].numel(), (crown_concretize_fwd(rows.abs(), size, torch.zeros_like(size)),)


def rounding_bwd(grads: tuple[Tensor, ...], args: tuple[Any, ...]) -> tuple[int, tuple[Tensor | None, ...]]:
    rows, center, radius = args
    wide = grads[0].abs().view(*grads[0].shape, *(1,) * (center.dim() - 1))
    total = (wide * rows.abs()).sum(1)
    return 8 + rows.shape[1], (wide * (center.abs() + radius).unsqueeze(1), total, total)


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``crown_concretize_fwd``: rows of both signs with exact zeros."""

    def make(shape: tuple[int, ...], rows: int, channels_last: bool = False) -> tuple[Any, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).to(device)

        matrix = normal(shape[0], rows, *shape[1:])
        matrix[torch.rand(matrix.shape, generator=generator).to(device) < 0.1] = 0
        if channels_last:
            matrix = matrix.movedim(2, -1).contiguous().movedim(-1, 2)
        return matrix, normal(*shape), normal(*shape).abs()

    return [
        ("features", make((3, 7), 4)),
        ("map", make((2, 3, 5, 4), 2)),
        ("map, channels last", make((2, 3, 5, 4), 9, channels_last=True)),
        ("long", make((2, 3000), 3)),
        ("single", make((1, 1), 1)),
        ("empty batch", make((0, 3, 4), 2)),
        ("no rows", make((2, 5), 0)),
        ("numbers", make((3,), 4)),
        ("no features", make((2, 0), 3)),
    ]
