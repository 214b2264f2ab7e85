"""`interval_margin`: one C++ or CUDA loop over |w_y - w_j| r, which never leaves the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import DTYPES
from fastbound.native import cpu_and_cuda as unsupported
from fastbound.primitives import Gradients

__all__ = ["DTYPES", "interval_margin_bwd", "interval_margin_fwd", "unsupported"]


def interval_margin_fwd(
    radius: Tensor,  # [B, D]
    weight: Tensor,  # [K, D]
    labels: Tensor,  # [B]
) -> Tensor:  # [B, K - 1]
    radius, weight, labels = radius.contiguous(), weight.contiguous(), labels.contiguous()
    (batch, features), classes = radius.shape, weight.shape[0]
    out = radius.new_empty(batch, classes - 1)
    _C.interval_margin_fwd(batch, features, classes, radius, weight, labels, out)
    return out


def interval_margin_bwd(
    grad: Tensor,  # [B, K - 1]
    radius: Tensor,  # [B, D]
    weight: Tensor,  # [K, D]
    labels: Tensor,  # [B]
    needs: tuple[bool, bool],
) -> Gradients:
    grad, radius, weight, labels = (
        grad.resolve_neg().contiguous(),
        radius.contiguous(),
        weight.contiguous(),
        labels.contiguous(),
    )
    (batch, features), classes = radius.shape, weight.shape[0]
    d_radius = torch.empty_like(radius) if needs[0] else None
    d_weight = torch.empty_like(weight) if needs[1] else None
    _C.interval_margin_bwd(batch, features, classes, grad, radius, weight, labels, d_radius, d_weight)
    return d_radius, d_weight
