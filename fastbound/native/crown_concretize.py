"""`crown_concretize` on CPU: both sums in one C++ pass that reads each row once."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPE_CODES, pointer
from fastbound.native import cpu_only as unsupported
from fastbound.native.crown_relu import dense_rows, like_rows
from fastbound.reference.crown_concretize import Gradients

__all__ = ["crown_concretize_bwd", "crown_concretize_fwd", "unsupported"]


def crown_concretize_fwd(
    rows: Tensor,  # [B, S, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
) -> Tensor:  # [B, S]
    rows, center, radius = _one_order(rows, center, radius)
    out = rows.new_empty(rows.shape[:2])
    _C.crown_concretize_fwd(
        DTYPE_CODES[rows.dtype],
        *(pointer(t) for t in (rows, center, radius, out)),
        *(*rows.shape[:2], rows.shape[2:].numel(), torch.get_num_threads()),
    )
    return out


def crown_concretize_bwd(
    grad: Tensor,  # [B, S]
    rows: Tensor,  # [B, S, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
    needs: tuple[bool, bool, bool],
) -> Gradients:
    rows, center, radius = _one_order(rows, center, radius)
    grad = grad.contiguous()
    d_rows = torch.empty_like(rows) if needs[0] else None
    box = needs[1] or needs[2]
    d_center, d_radius = (torch.empty_like(center), torch.empty_like(radius)) if box else (None, None)
    _C.crown_concretize_bwd(
        DTYPE_CODES[rows.dtype],
        *(pointer(t) for t in (grad, rows, center, radius, d_rows, d_center, d_radius)),
        *(*rows.shape[:2], rows.shape[2:].numel(), torch.get_num_threads()),
    )
    return d_rows, d_center, d_radius


def _one_order(rows: Tensor, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if rows.dim() == 2:
        return rows.contiguous(), center.contiguous(), radius.contiguous()
    rows, _ = dense_rows(rows)
    return rows, like_rows(center, rows), like_rows(radius, rows)
