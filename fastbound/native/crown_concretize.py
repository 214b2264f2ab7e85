"""`crown_concretize`: both sums in one C++ or CUDA pass that reads each row once."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPES
from fastbound.native import cpu_and_cuda as unsupported
from fastbound.native.crown_relu import dense_rows, like_rows
from fastbound.primitives import Gradients

__all__ = ["DTYPES", "crown_concretize_bwd", "crown_concretize_fwd", "unsupported"]


def crown_concretize_fwd(
    rows: Tensor,  # [B, S, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
) -> Tensor:  # [B, S]
    rows, center, radius = _one_order(rows, center, radius)
    out = rows.new_empty(rows.shape[:2])
    batch, functions = rows.shape[:2]
    _C.crown_concretize_fwd(batch, functions, rows.shape[2:].numel(), rows, center, radius, out)
    return out


def crown_concretize_bwd(
    grad: Tensor,  # [B, S]
    rows: Tensor,  # [B, S, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
    needs: tuple[bool, bool, bool],
) -> Gradients:
    rows, center, radius = _one_order(rows, center, radius)
    grad = grad.resolve_neg().contiguous()
    d_rows = torch.empty_like(rows) if needs[0] else None
    box = needs[1] or needs[2]
    d_center, d_radius = (torch.empty_like(center), torch.empty_like(radius)) if box else (None, None)
    (batch, functions), size = rows.shape[:2], rows.shape[2:].numel()
    _C.crown_concretize_bwd(batch, functions, size, grad, rows, center, radius, d_rows, d_center, d_radius)
    return d_rows, d_center, d_radius


def _one_order(rows: Tensor, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if rows.dim() == 2:
        return rows.contiguous(), center.contiguous(), radius.contiguous()
    rows, _ = dense_rows(rows)
    return rows, like_rows(center, rows), like_rows(radius, rows)
