"""Losses on bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.domains.interval import Interval


def robust_cross_entropy(margins: Interval) -> Tensor:
    """Cross-entropy of the worst-case logits, ``mean_b log(1 + sum_j exp(-lower_bj))``.

    Args:
        margins: `Interval` [B, K - 1] of margins z_y - z_j, from ``fastbound.bound(..., spec=margin_spec(...))``; only its
            lower end is read.

    Returns:
        Scalar tensor.

    Raises:
        TypeError: not an Interval. ValueError: not of shape [B, K - 1].

    Soundness: an upper bound on the mean worst-case cross-entropy, rounded to nearest.
    Source: Gowal et al., 2018, arXiv 1810.12715; Wong & Kolter, 2018, arXiv 1711.00851.
    """
    if not isinstance(margins, Interval):
        raise TypeError(f"margins: wanted an Interval from fastbound.bound, got {type(margins).__name__}.")
    if margins.dim() != 2:
        raise ValueError(f"margins: wanted shape [B, K - 1], got {tuple(margins.shape)}; pass spec= to fastbound.bound.")
    lower = margins.lower
    return torch.logsumexp(torch.nn.functional.pad(-lower, (1, 0)), 1).mean()
