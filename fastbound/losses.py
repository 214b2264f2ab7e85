"""Losses on bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.bounds import bound, margins
from fastbound.domains.checks import require
from fastbound.domains.interval import Interval
from fastbound.spec import check_labels


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
    return margin_cross_entropy(margins.lower)


def margin_cross_entropy(margins: Tensor) -> Tensor:  # [B, K - 1]
    """Cross-entropy of logits whose margins z_y - z_j, j != y, are given: ``mean_b log(1 + sum_j exp(-margin_bj))``.

    Soundness: of margins that are lower bounds an upper bound on the mean worst-case cross-entropy, rounded to nearest.
    """
    return torch.logsumexp(torch.nn.functional.pad(-margins, (1, 0)), 1).mean()


def fused_cross_entropy(out: Interval, labels: Tensor, beta: float | Tensor) -> Tensor:  # labels [B]
    """Robust cross-entropy with CROWN-IBP bounds from one backward row a sample, whatever the number of classes.

    Bounds ``sum_k exp(z_k - z_y)`` itself: by intervals p <= z_k - z_y <= q as ``sum exp(q)``, and by replacing each
    exp with its chord on [p, q], which leaves one linear function of the logits to bound from above. The loss is
    ``mean log(beta crown + (1 - beta) ibp)``, both sums shifted by M = max q.

    Args:
        out: logits [B, K] as an `Interval` with its tape.
        labels: [B], integers in [0, K).
        beta: share of CROWN in [0, 1], a number or a tensor []; at the number 0 the backward pass is skipped and the
            loss is IBP's robust cross-entropy.

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
    if isinstance(beta, Tensor):
        require((beta >= 0) & (beta <= 1), "beta: wanted a share in [0, 1], got another (or NaN).")
    elif not 0 <= beta <= 1:
        raise ValueError(f"beta: wanted a number in [0, 1], got {beta}.")
    labels = check_labels(labels, out.shape[1]).to(out.device)
    # The label's own difference is 0, so that the largest of all is at least 0.
    found = margins(out, labels)
    low, high = -found.upper, -found.lower
    shift = high.detach().amax(1, keepdim=True).clamp(min=0)
    # The label's own term; the shift cancels in value, and so has no gradient.
    own = (-shift).exp()
    at_high = (high - shift).exp()
    total = at_high.sum(1, keepdim=True) + own
    if isinstance(beta, Tensor) or beta > 0:
        chords = _chord_sum(out, labels, low, high, at_high, shift) + own
        # It bounds the sum from below, also where rounding has eaten the rest.
        total = beta * torch.maximum(chords, own.clamp(min=torch.finfo(own.dtype).tiny)) + (1 - beta) * total
    return (total.log() + shift).mean()


def _chord_sum(
    out: Interval, labels: Tensor, low: Tensor, high: Tensor, at_high: Tensor, shift: Tensor
) -> Tensor:  # [B, 1]
    """An upper bound of ``sum_k exp(z_k - z_y - shift)`` over the differences in [low, high], each [B, K - 1]."""
    width, at_low = high - low, (low - shift).exp()
    slope = torch.where(width > 0, (at_high - at_low) / torch.where(width > 0, width, 1.0), at_high)
    offset = torch.maximum(torch.addcmul(at_low, slope, low, value=-1), torch.addcmul(at_high, slope, high, value=-1))
    # The coefficient of z_k is its slope, that of z_y minus their sum; bounded from above as its negative from below.
    classes = torch.arange(out.shape[1], device=labels.device)
    place = (classes + (classes < labels.unsqueeze(1))).masked_fill(classes == labels.unsqueeze(1), 0)
    row = torch.cat((slope.sum(1, keepdim=True), -slope), 1).gather(1, place)
    return offset.sum(1, keepdim=True) - bound(out, method="crown-ibp", spec=row.unsqueeze(1)).lower
