"""Losses on bounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.bounds import bound, margins
from fastbound.domains.checks import require
from fastbound.domains.interval import Interval
from fastbound.domains.lipschitz import Lipschitz
from fastbound.domains.singleprop import SingleProp
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

    Soundness: if the margins are lower bounds, an upper bound on the mean worst-case cross-entropy, rounded to nearest.
    """
    return torch.logsumexp(torch.nn.functional.pad(-margins, (1, 0)), 1).mean()


def singleprop_cross_entropy(out: SingleProp, labels: Tensor) -> Tensor:  # labels [B]
    """Cross-entropy of z_y - v_y against z_j + v_j, j != y: every logit moved by its radius to its worse side.

    The logits' own radii are taken, without elision of the last layer. Training mixes it with the clean loss,
    ``kappa * F.cross_entropy(out.nominal, labels) + (1 - kappa) * singleprop_cross_entropy(out, labels)``.

    Args:
        out: logits [B, K] as a `SingleProp`.
        labels: [B], integers in [0, K).

    Returns:
        Scalar tensor.

    Raises:
        TypeError: not a SingleProp. ValueError: not [B, K], labels of another length or out of range.

    Soundness: none; it is no bound on the worst-case cross-entropy.
    Source: Boopathy et al., 2021, arXiv 2102.01208.
    """
    if not isinstance(out, SingleProp):
        raise TypeError(f"out: wanted the SingleProp that the model returned, got {type(out).__name__}.")
    if out.dim() != 2:
        raise ValueError(f"out: wanted logits [B, K], got {tuple(out.shape)}.")
    labels = check_labels(labels, out.shape[1]).to(out.device)
    if len(labels) != out.shape[0]:
        raise ValueError(f"labels: wanted {out.shape[0]} of them, one for each row of out, got {len(labels)}.")
    nominal, radius = out.nominal, out.radius
    own = torch.nn.functional.one_hot(labels, out.shape[1]).bool()
    return torch.nn.functional.cross_entropy(torch.where(own, nominal - radius, nominal + radius), labels)


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
    found = margins(out, labels)
    low, high = -found.upper, -found.lower
    # The label's own difference is 0, so the largest of all is at least 0. The shift cancels in the value, so it has no
    # gradient.
    shift = high.detach().amax(1, keepdim=True).clamp(min=0)
    own = (-shift).exp().clamp(min=torch.finfo(shift.dtype).tiny)
    if not isinstance(beta, Tensor) and beta == 0:
        total = (high - shift).exp().sum(1, keepdim=True)
    else:
        slope, offset, total = _Chords.apply(low, high, shift)
        # The coefficient of z_k is its slope, that of z_y minus the sum of all slopes. The upper bound is minus the
        # lower bound of the negated function. A sum of exp is at least 0, even if rounding has pushed its bound below.
        row = torch.cat((slope.sum(1, keepdim=True), -slope), 1).gather(1, _positions(labels, out.shape[1]))
        crown = offset - bound(out, method="crown-ibp", spec=row.unsqueeze(1)).lower
        total = torch.lerp(total, crown.clamp(min=0), beta)
    return ((total + own).log() + shift).mean()


def _positions(labels: Tensor, classes: int) -> Tensor:  # [B] -> [B, K]
    """The position of each class in a row that lists the label first, then the other classes in increasing order."""
    order = torch.arange(classes, device=labels.device)
    return (order + (order < labels.unsqueeze(1))).masked_fill(order == labels.unsqueeze(1), 0)


class _Chords(torch.autograd.Function):
    """Chords of ``exp(z - shift)`` on [low, high], each [B, K - 1]: their slopes, and the sums [B, 1] of their offsets
    and of ``exp(high - shift)``.

    The gradient is written by hand: autograd's takes as long as a small layer, and loses its digits to cancellation if
    chords are narrow.
    """

    @staticmethod
    def forward(ctx: Any, low: Tensor, high: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at_low, at_high, width = (low - shift).exp(), (high - shift).exp(), high - low
        slope = torch.where(width > 0, (at_high - at_low) / width, at_high)
        ctx.save_for_backward(low, width, at_low, at_high, slope)
        # Raised to hold at both ends however the slope was rounded.
        ends = torch.addcmul(at_low, slope, low, value=-1), torch.addcmul(at_high, slope, high, value=-1)
        return slope, torch.maximum(*ends).sum(1, keepdim=True), at_high.sum(1, keepdim=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_slope: Tensor, d_offset: Tensor, d_total: Tensor) -> tuple[Tensor, Tensor, None]:
        low, width, at_low, at_high, slope = ctx.saved_tensors
        # If the differences cancel, use their series in the width.
        narrow = width < torch.finfo(width.dtype).eps ** (1 / 3)
        by_high = torch.where(narrow, at_high * (0.5 - width / 6), (at_high - slope) / width)
        by_low = torch.where(narrow, at_high * (0.5 - width / 3), (slope - at_low) / width)
        through_slope = torch.addcmul(d_slope, d_offset, low, value=-1)
        d_low = torch.addcmul(through_slope * by_low, d_offset, at_low - slope)
        return d_low, torch.addcmul(through_slope * by_high, d_total, at_high), None


def gloro_cross_entropy(out: Lipschitz, labels: Tensor, eps: float | Tensor) -> Tensor:  # labels [B]
    """Cross-entropy of the K + 1 logits of a globally-robust network: the K classes, and the bottom logit, which is the
    largest if the prediction is not robust at eps. Bottom is never a label.

    Args:
        out: logits [B, K] as a `Lipschitz`.
        labels: [B], integers in [0, K).
        eps: l2 radius in the units of the input, a number or a tensor [].

    Returns:
        Scalar tensor.

    Raises:
        TypeError: not a Lipschitz. ValueError: not [B, K], or labels out of range.

    Soundness: none; it trains with estimates of the constants.
    Source: Leino, Wang & Fredrikson, ICML 2021, arXiv 2102.08452.
    """
    labels = _checked_gloro(out, labels)
    logits = torch.cat((out.nominal, out.bottom_logit(eps).unsqueeze(1)), 1)
    return torch.nn.functional.cross_entropy(logits, labels)


def gloro_trades(
    out: Lipschitz, labels: Tensor, eps: float | Tensor, weight: float | Tensor, divergence: str = "kl"
) -> Tensor:  # labels [B]
    """Clean cross-entropy plus ``weight`` times the divergence from the clean probabilities (0 for bottom) to the
    probabilities with the bottom logit. Gradients flow into both.

    Args:
        out: logits [B, K] as a `Lipschitz`.
        labels: [B], integers in [0, K).
        eps: l2 radius in the units of the input, a number or a tensor [].
        weight: of the divergence, a number or a tensor [].
        divergence: "kl" or "ce" (cross-entropy: it also rewards confident clean probabilities).

    Returns:
        Scalar tensor.

    Raises:
        TypeError: not a Lipschitz. ValueError: not [B, K], labels out of range, another divergence.

    Soundness: none; it trains with estimates of the constants.
    Source: Leino, Wang & Fredrikson, ICML 2021, arXiv 2102.08452, after Zhang et al., 2019, arXiv 1901.08573.
    """
    if divergence not in ("kl", "ce"):
        raise ValueError(f"divergence: wanted 'kl' or 'ce', got {divergence!r}.")
    labels = _checked_gloro(out, labels)
    logits, bottom = out.nominal, out.bottom_logit(eps).unsqueeze(1)
    clean = logits.log_softmax(1)
    with_bottom = logits - torch.logsumexp(torch.cat((logits, bottom), 1), 1, keepdim=True)
    # Bottom has probability 0 in the clean distribution, so it has no term.
    terms = -with_bottom if divergence == "ce" else clean - with_bottom
    return torch.nn.functional.nll_loss(clean, labels) + weight * (clean.exp() * terms).sum(1).mean()


def _checked_gloro(out: Lipschitz, labels: Tensor) -> Tensor:
    if not isinstance(out, Lipschitz):
        raise TypeError(
            f"out: wanted the Lipschitz value that the model returned for fastbound.lipschitz(x), got "
            f"{type(out).__name__}."
        )
    if out.dim() != 2:
        raise ValueError(f"out: wanted logits [B, K], got {tuple(out.shape)}.")
    return check_labels(labels, out.shape[1]).to(out.device)
