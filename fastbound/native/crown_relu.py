"""`crown_relu`: one C++ or CUDA pass that reads and writes each row once, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPES, HALVES, in_compute_dtype
from fastbound.native import cpu_and_cuda as unsupported
from fastbound.native.layout import channel_layout, in_order_of
from fastbound.primitives import Gradients
from fastbound.primitives.crown_relu import RELAXATIONS, reads_output

__all__ = ["DTYPES", "crown_relu_bwd", "crown_relu_fwd", "unsupported"]


def crown_relu_fwd(
    rows: Tensor,  # [B, S, C, *]
    center: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    scale: Tensor | None,  # [C], None: 1
    shift: Tensor | None,  # [C], None: 0
    offset: Tensor | None,  # [C], None: 0
    slope: float,
    relaxation: str,
) -> tuple[Tensor, Tensor]:  # [B, S, C, *], [B, S]
    rows, layout = dense_rows(rows)
    center, radius = like_rows(center, rows), like_rows(radius, rows)
    vectors = (in_compute_dtype(scale), in_compute_dtype(shift), in_compute_dtype(offset))
    out, bias = torch.empty_like(rows), rows.new_empty(rows.shape[:2])
    numbers = (rows.shape[0], rows.shape[1], *layout, slope, RELAXATIONS.index(relaxation))
    _C.crown_relu_fwd(*numbers, rows, center, radius, *vectors, out, bias)
    return out, bias


def crown_relu_bwd(
    grad_rows: Tensor | None,  # [B, S, C, *]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor | None,  # [B, S, C, *], None if `reads_output`
    out_rows: Tensor | None,  # [B, S, C, *], None if not
    center: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    scale: Tensor | None,  # [C]
    shift: Tensor | None,  # [C]
    offset: Tensor | None,  # [C]
    slope: float,
    relaxation: str,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients of rows, center, radius, scale, shift and offset."""
    kept = out_rows if reads_output(center.dtype, scale) else rows
    assert kept is not None
    kept, layout = dense_rows(kept)
    center, radius = like_rows(center, kept), like_rows(radius, kept)
    vectors = (in_compute_dtype(scale), in_compute_dtype(shift), in_compute_dtype(offset))
    grad_rows = None if grad_rows is None else in_order_of(grad_rows, kept)
    grad_bias = None if grad_bias is None else grad_bias.resolve_neg().contiguous()
    d_rows, d_center, d_radius = torch.empty_like(kept), torch.empty_like(center), torch.empty_like(radius)
    sums = kept.new_empty(3, kept.shape[2], dtype=torch.float32 if kept.dtype in HALVES else None)
    numbers = (kept.shape[0], kept.shape[1], *layout, slope, RELAXATIONS.index(relaxation))
    outputs = (d_rows, d_center, d_radius, sums)
    _C.crown_relu_bwd(*numbers, grad_rows, grad_bias, kept, center, radius, *vectors, *outputs)
    channels = (None if v is None else d.to(v.dtype) for v, d in zip((scale, shift, offset), sums))
    return d_rows, d_center, d_radius, *channels


def dense_rows(rows: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Rows [B, S, C, *] without gaps, and the order (outer, C, inner) of one of their maps."""
    flat = rows.flatten(0, 1)
    if channel_layout(flat) is None:
        flat = flat.contiguous()
        rows = flat.unflatten(0, rows.shape[:2])
    elif flat.data_ptr() != rows.data_ptr():
        rows = flat.unflatten(0, rows.shape[:2])
    spatial = flat.shape[2:].numel()
    inner_channels = not flat.is_contiguous() or spatial == 1
    return rows, (spatial, flat.shape[1], 1) if inner_channels else (1, flat.shape[1], spatial)


def like_rows(x: Tensor, rows: Tensor) -> Tensor:
    """``x`` [B, C, *] in the memory order of the maps in dense rows [B, S, C, *]."""
    flat = rows.flatten(0, 1)
    if flat.is_contiguous():
        return x.contiguous()
    return x.movedim(1, -1).contiguous().movedim(-1, 1)
