"""Losses on bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.bounds import bound
from fastbound.domains.interval import Interval
from fastbound.spec import margin_spec


def robust_cross_entropy(margins: Interval) -> Tensor:
    """Cross-entropy of the worst-case logits, ``mean_b log(1 + sum_j exp(-lower_bj))``.

    Args:
        margins: `Interval` [B, K - 1] of margins z_y - z_j, from ``fastbound.bound(..., spec=margin_spec(...))``; only
            its lower end is read.

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
        raise ValueError(
            f"margins: wanted shape [B, K - 1], got {tuple(margins.shape)}; pass spec= to fastbound.bound."
        )
    lower = margins.lower
    return torch.logsumexp(torch.nn.functional.pad(-lower, (1, 0)), 1).mean()


def fused_cross_entropy(out: Interval, labels: Tensor, beta: float) -> Tensor:  # labels [B]
    """Robust cross-entropy with CROWN-IBP bounds from one backward row a sample, whatever the number of classes.

    Bounds ``sum_k exp(z_k - z_y)`` itself: by intervals p <= z_k - z_y <= q as ``sum exp(q)``, and by replacing each
    exp with its chord on [p, q], which leaves one linear function of the logits to bound from above. The loss is
    ``mean log(beta crown + (1 - beta) ibp)``, both sums shifted by M = max q.

    Args:
        out: logits [B, K] as an `Interval` with its tape.
        labels: [B], integers in [0, K).
        beta: share of CROWN in [0, 1]; at 0 the backward pass is skipped and the loss is IBP's robust cross-entropy.

    Returns:
        Scalar tensor.

    Raises:
        TypeError: not an Interval. ValueError: not [B, K], labels out of range, beta outside [0, 1].
        MissingRuleError, TapeError: see `bound`.

    Soundness: an upper bound on the mean worst-case cross-entropy, rounded to nearest. The chord is raised to hold at
    both ends however its slope was rounded.
    Source: Xu et al., 2020, arXiv 2002.12920, section 3.3.
    """
    if not isinstance(out, Interval):
        raise TypeError(f"out: wanted the Interval that the model returned, got {type(out).__name__}.")
    if out.dim() != 2:
        raise ValueError(f"out: wanted logits [B, K], got {tuple(out.shape)}.")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta: wanted a number in [0, 1], got {beta}.")
    margins = bound(out, method="ibp", spec=margin_spec(labels, out.shape[1]))
    zero = out.center.new_zeros(out.shape[0], 1)
    high = torch.cat((zero, -margins.lower), 1)  # the label's own difference is 0
    shift = high.detach().amax(1)
    total = (high - shift.unsqueeze(1)).exp().sum(1)
    if beta > 0:
        total = beta * _chord_sum(out, labels, -margins.upper, high[:, 1:], shift) + (1 - beta) * total
    # The shift cancels in value, and so has no gradient.
    return (total.log() + shift).mean()


def _chord_sum(out: Interval, labels: Tensor, low: Tensor, high: Tensor, shift: Tensor) -> Tensor:
    """An upper bound [B] of ``sum_k exp(z_k - z_y - shift)``; [low, high], each [B, K - 1], holds the differences."""
    low, high = low - shift.unsqueeze(1), high - shift.unsqueeze(1)
    width = high - low
    at_low, at_high = low.exp(), high.exp()
    slope = torch.where(width > 0, (at_high - at_low) / torch.where(width > 0, width, 1.0), at_high)
    offset = torch.maximum(at_low - slope * low, at_high - slope * high)
    row = -(slope.unsqueeze(1) @ margin_spec(labels, out.shape[1]).to(slope))
    own = (-shift).exp()
    linear = bound(out, method="crown-ibp", spec=row).upper.squeeze(1)
    constant = (offset - slope * shift.unsqueeze(1)).sum(1) + own
    # The label's own term bounds the sum from below, also where rounding has eaten the rest.
    return torch.maximum(linear + constant, own.clamp(min=torch.finfo(own.dtype).tiny))
