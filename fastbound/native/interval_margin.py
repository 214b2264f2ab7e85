"""`interval_margin` on CPU: one C++ loop over |w_y - w_j| r, which never leaves the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPE_CODES
from fastbound.native import cpu_only as unsupported
from fastbound.reference.interval_margin import Gradients

__all__ = ["interval_margin_bwd", "interval_margin_fwd", "unsupported"]


def interval_margin_fwd(
    radius: Tensor,  # [B, D]
    weight: Tensor,  # [K, D]
    labels: Tensor,  # [B]
) -> Tensor:  # [B, K - 1]
    radius, weight, labels = radius.contiguous(), weight.contiguous(), labels.contiguous()
    (batch, features), classes = radius.shape, weight.shape[0]
    out = radius.new_empty(batch, classes - 1)
    _C.interval_margin_fwd(
        DTYPE_CODES[radius.dtype],
        radius.data_ptr(),
        weight.data_ptr(),
        labels.data_ptr(),
        out.data_ptr(),
        *(batch, features, classes, torch.get_num_threads()),
    )
    return out


def interval_margin_bwd(
    grad: Tensor,  # [B, K - 1]
    radius: Tensor,  # [B, D]
    weight: Tensor,  # [K, D]
    labels: Tensor,  # [B]
    needs: tuple[bool, bool],
) -> Gradients:
    grad, radius, weight, labels = grad.contiguous(), radius.contiguous(), weight.contiguous(), labels.contiguous()
    (batch, features), classes = radius.shape, weight.shape[0]
    d_radius = torch.empty_like(radius) if needs[0] else None
    d_weight = torch.empty_like(weight) if needs[1] else None
    _C.interval_margin_bwd(
        DTYPE_CODES[radius.dtype],
        grad.data_ptr(),
        radius.data_ptr(),
        weight.data_ptr(),
        labels.data_ptr(),
        0 if d_radius is None else d_radius.data_ptr(),
        0 if d_weight is None else d_weight.data_ptr(),
        *(batch, features, classes, torch.get_num_threads()),
    )
    return d_radius, d_weight
