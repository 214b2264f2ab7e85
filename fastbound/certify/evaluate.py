"""Certification of a model on a loader."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from fastbound.certify.balls import Ball, check_certificate, find_ball
from fastbound.certify.modes import evaluation_mode, ieee_float32, refuse_batch_statistics
from fastbound.certify.pgd import Attack
from fastbound.certify.report import Report, joined

DEFAULT_ATTACK = Attack()


def certify(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    eps: float,
    method: str | None = None,
    *,
    norm: str = "linf",
    attack: Attack | None = DEFAULT_ATTACK,
    limit: int | None = None,
    lower: float | None = 0.0,
    upper: float | None = 1.0,
    seed: int = 0,
    on_batch: Callable[[Report], None] | None = None,
) -> Report:
    """Certifies every sample of `loader` in the ball of radius `eps`, and checks the certificates by an attack.

    A sample is certified when it is classified correctly and every margin bound is greater than 0. The model runs in
    evaluation mode (restored afterwards), without gradients, in the precision of its parameters: IEEE float32 or
    float64, whatever the ambient flags say.

    Args:
        model: any module that `fastbound.bound` takes, for norm "l2" one that takes `fastbound.lipschitz` values; its
            output is logits [B, K].
        loader: iterable of (x [B, ...], labels int64 [B]), for example ``fastbound.data.Loader``; moved to the model's
            device.
        eps: radius in input units (pixels in [0, 1]).
        method: for norm "linf" "ibp" (the default), "crown-ibp", "crown", a relaxation's name (see `fastbound.bound`),
            or "lp": linear programs over the triangle relaxation, in float64, for small networks; for norm "l2"
            "lipschitz".
        norm: of the ball, "linf" or "l2" (the Euclidean distance of whole inputs).
        attack: settings of the PGD attack (``from fastbound.certify import Attack``); None for no attack.
        limit: the first samples only.
        lower, upper: the range of valid inputs, to which the ball is clipped (for norm "l2" only in the attack); None
            for no clipping on that side.
        seed: of the attack's random starts.
        on_batch: called with the report of every batch, for example to show progress.

    Raises:
        ValueError: bad eps, norm, method (also one of another norm), labels or limit; an empty loader; BatchNorm with
            track_running_stats=False.
        TypeError: parameters that are neither float32 nor float64.
        SoundnessError: the attack broke a certified sample; `index` names it.

    Soundness: the bounds of `method`, rounded to nearest (no outward rounding); of "lipschitz" the constants are
    proven in float64, and only the logits are rounded to nearest.
    """
    eps = _checked_eps(eps)
    ball = find_ball(norm)(lower, upper)
    method = ball.default if method is None else method
    check_certificate("method", norm, method)
    if limit is not None and limit < 1:
        raise ValueError(f"limit: wanted at least 1 sample, got {limit}.")
    refuse_batch_statistics(model)
    device, dtype = _placement(model)
    generator = torch.Generator(device).manual_seed(seed)
    reports = []
    with evaluation_mode(model), ieee_float32():
        for x, labels in _batches(loader, limit):
            report = _certify_batch(model, x.to(device, dtype), labels.to(device), eps, ball, method, attack, generator)
            reports.append(report)
            if on_batch is not None:
                on_batch(report)
    if not reports:
        raise ValueError("loader: it gave no sample to certify.")
    return joined(reports).check()


def _certify_batch(
    model: nn.Module,
    x: Tensor,  # [B, ...]
    labels: Tensor,  # [B]
    eps: float,
    ball: Ball,
    method: str,
    attack: Attack | None,
    generator: torch.Generator,
) -> Report:
    start = time.perf_counter()
    with torch.no_grad():
        verdict = ball.judge(model, x, labels, eps, method)
    correct = verdict.logits.argmax(1) == labels
    survived = None
    if attack is not None:
        survived = correct.clone()
        # A misclassified sample needs no attack; a certified one does, as the check of its certificate.
        if eps > 0 and correct.any():
            survived[correct] = ~ball.attack(model, x[correct], labels[correct], eps, attack, generator)
    return Report(
        eps=eps,
        norm=ball.norm,
        method=method,
        margins=verdict.margins.cpu(),
        clean_correct=correct.cpu(),
        attacked_correct=None if survived is None else survived.cpu(),
        rejected=None if verdict.rejected is None else verdict.rejected.cpu(),
        precision=ball.precision(method, x.dtype),
        attack=None if attack is None else f"pgd, {attack.steps} steps, {attack.restarts} restarts",
        seconds=time.perf_counter() - start,
    )


def _batches(loader: Iterable[tuple[Tensor, Tensor]], limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    left = math.inf if limit is None else limit
    for x, labels in loader:
        take = int(min(left, len(x)))
        if take:
            yield x[:take], labels[:take]
        left -= take
        if left <= 0:
            return


def _checked_eps(eps: float) -> float:
    value = float(eps)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"eps: wanted a finite radius of at least 0, got {eps}.")
    return value


def _placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    parameter = next(model.parameters(), None)
    if parameter is None:
        return torch.device("cpu"), torch.float32
    if parameter.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"model: a certificate needs parameters in float32 or float64, these are {parameter.dtype}; call "
            "model.float()."
        )
    return parameter.device, parameter.dtype
