"""Margins ``z_y - z_j`` of the last linear layer, with the specification merged into its weights.

``m_j = (w_y - w_j) c + b_y - b_j``, radius ``|w_y - w_j| r`` for the classes j != y in increasing order (last-layer
elision: Gowal et al., 2018, arXiv 1810.12715, section 3). The center is a difference of logits and needs no merged
weights. The radius needs them; this formula takes the classes one by one, which avoids a [B, K - 1, D] tensor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import Gradients
from fastbound.primitives.interval_margin import other_classes


def interval_margin_fwd(
    radius: Tensor,  # [B, D]
    weight: Tensor,  # [K, D]
    labels: Tensor,  # [B]
) -> Tensor:  # [B, K - 1], radius of the margins
    own = weight[labels]
    widths = torch.stack([((own - row).abs() * radius).sum(1) for row in weight], 1)
    return widths.gather(1, other_classes(labels, weight.shape[0]))


def interval_margin_bwd(
    grad: Tensor,  # [B, K - 1]
    radius: Tensor,  # [B, D]
    weight: Tensor,  # [K, D]
    labels: Tensor,  # [B]
    needs: tuple[bool, bool],
) -> Gradients:
    own = weight[labels]
    full = torch.zeros(grad.shape[0], weight.shape[0], dtype=grad.dtype, device=grad.device)
    full.scatter_(1, other_classes(labels, weight.shape[0]), grad)
    d_radius = torch.zeros_like(radius)
    d_own = torch.zeros_like(radius)
    rows = []
    for row, g in zip(weight, full.unbind(1), strict=True):
        difference = own - row
        d_radius += g.unsqueeze(1) * difference.abs()
        signed = g.unsqueeze(1) * difference.sign() * radius
        d_own += signed
        rows.append(-signed.sum(0))
    d_weight = torch.stack(rows).index_add(0, labels, d_own) if needs[1] else None
    return d_radius if needs[0] else None, d_weight


def rounding(radius: Tensor, weight: Tensor, labels: Tensor) -> tuple[int, tuple[Tensor]]:
    """The number of rounded operations in an output, and the magnitudes of its terms, of both weights of w_y - w_j."""
    widths = (weight.abs()[labels] * radius).sum(1, keepdim=True) + radius @ weight.abs().T
    return 4 + radius.shape[1], (widths.gather(1, other_classes(labels, weight.shape[0])),)


def rounding_bwd(grads: tuple[Tensor], args: tuple[Any, ...]) -> tuple[int, tuple[Tensor, Tensor]]:
    """The same for the gradients; sign(w_y - w_j) itself is exact."""
    radius, weight, labels = args
    (batch, _), classes = radius.shape, weight.shape[0]
    full = grads[0].new_zeros(batch, classes).scatter_(1, other_classes(labels, classes), grads[0].abs())
    total = full.sum(1, keepdim=True)
    d_radius = total * weight.abs()[labels] + full @ weight.abs()
    d_weight = (full.T @ radius).index_add(0, labels, total * radius)
    return 4 + classes * (1 + batch), (d_radius, d_weight)


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``interval_margin_fwd``."""

    def make(batch: int, features: int, classes: int) -> tuple[Any, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).to(device)

        labels = torch.randint(classes, (batch,), generator=generator).to(device)
        return normal(batch, features).abs(), normal(classes, features), labels

    return [
        ("ten classes", make(6, 33, 10)),
        ("two classes", make(5, 7, 2)),
        ("many classes", make(3, 19, 41)),
        ("single", make(1, 1, 2)),
        ("empty batch", make(0, 4, 3)),
        ("one class", make(3, 4, 1)),
        ("no features", make(3, 0, 4)),
    ]
