"""Certification of a model on a loader."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from fastbound.bounds import bound
from fastbound.certify.lp import triangle_margins
from fastbound.certify.modes import evaluation_mode, ieee_float32, refuse_batch_statistics
from fastbound.certify.pgd import Attack, pgd_attack
from fastbound.certify.report import Report, joined
from fastbound.domains.box import linf_box
from fastbound.methods import METHODS, check_method
from fastbound.spec import margin_spec

DEFAULT_ATTACK = Attack()
ZONOTOPE_BATCH = 32
ALONE = ("lp",)  # methods that certify, and bound nothing else


def certify(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    eps: float,
    method: str = "ibp",
    *,
    attack: Attack | None = DEFAULT_ATTACK,
    limit: int | None = None,
    lower: float | None = 0.0,
    upper: float | None = 1.0,
    seed: int = 0,
    on_batch: Callable[[Report], None] | None = None,
) -> Report:
    """Certifies every sample of `loader` in the l_inf ball of radius `eps`, and attacks it from the other side.

    A sample is certified when it is classified correctly and every margin bound is greater than 0. The model runs in
    evaluation mode (restored afterwards), without gradients, in the precision of its parameters: IEEE float32 or
    float64, whatever the ambient flags say.

    Args:
        model: any module that `fastbound.bound` takes; its output is logits [B, K].
        loader: iterable of (x [B, ...], labels int64 [B]), for example ``fastbound.data.Loader``; moved to the model's
            device.
        eps: radius in input units (pixels in [0, 1]).
        method: "ibp", "crown-ibp", "crown", a relaxation's name (see `fastbound.bound`), or "lp": linear programs over
            the triangle relaxation, in float64, for small networks.
        attack: settings of the PGD attack (``from fastbound.certify import Attack``); None for no attack.
        limit: the first samples only.
        lower, upper: the range of valid inputs, which clips the ball; None for no clipping on that side.
        seed: of the attack's random starts.
        on_batch: called with the report of every batch, for example to show progress.

    Raises:
        ValueError: bad eps, method, labels or limit; an empty loader; BatchNorm with track_running_stats=False.
        TypeError: parameters that are neither float32 nor float64.
        SoundnessError: the attack broke a certified sample; `index` names it.

    Soundness: the bounds of `method`, rounded to nearest (no outward rounding).
    """
    eps = _checked_eps(eps)
    check_method("method", method, *ALONE)
    if limit is not None and limit < 1:
        raise ValueError(f"limit: wanted at least 1 sample, got {limit}.")
    refuse_batch_statistics(model)
    device, dtype = _placement(model)
    generator = torch.Generator(device).manual_seed(seed)
    bounds_of_input = {"lower": lower, "upper": upper}
    reports = []
    with evaluation_mode(model), ieee_float32():
        for x, labels in _batches(loader, limit):
            report = _certify_batch(
                model, x.to(device, dtype), labels.to(device), eps, method, attack, bounds_of_input, generator
            )
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
    method: str,
    attack: Attack | None,
    input_range: dict[str, float | None],
    generator: torch.Generator,
) -> Report:
    start = time.perf_counter()
    with torch.no_grad():
        logits = model(x)
        _check_labels(labels, logits)
        if method == "lp":
            margins = triangle_margins(model, x, labels, eps, **input_range)
        else:
            # A batch shares the budget of error terms; few samples at a time keep what training had.
            size = ZONOTOPE_BATCH if METHODS[method].kind == "zonotope" else len(x)
            parts = []
            for part, own in zip(x.split(size), labels.split(size), strict=True):
                box = linf_box(part, eps, nominal=False, **input_range)
                parts.append(bound(model, box, method=method, spec=margin_spec(own, logits.shape[1])).lower)
            margins = torch.cat(parts)
    correct = logits.argmax(1) == labels
    survived = None
    if attack is not None:
        survived = correct.clone()
        # A wrong sample needs no attack; a certified one does: that is the check of the certificate.
        survived[correct] = ~_attack(model, x[correct], labels[correct], eps, attack, input_range, generator)
    return Report(
        eps=eps,
        method=method,
        margins=margins.cpu(),
        clean_correct=correct.cpu(),
        attacked_correct=None if survived is None else survived.cpu(),
        precision=f"{'float64' if method == 'lp' else str(x.dtype).removeprefix('torch.')} (ieee), rounded to nearest",
        attack=None if attack is None else f"pgd, {attack.steps} steps, {attack.restarts} restarts",
        seconds=time.perf_counter() - start,
    )


def _attack(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    eps: float,
    attack: Attack,
    input_range: dict[str, float | None],
    generator: torch.Generator,
) -> Tensor:
    if not len(x) or eps == 0:
        return torch.zeros_like(labels, dtype=torch.bool)
    lower, upper = input_range["lower"], input_range["upper"]
    low, high = -math.inf if lower is None else lower, math.inf if upper is None else upper
    return pgd_attack(model, x, labels, eps, attack=attack, lower=low, upper=high, generator=generator)[1]


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


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    if logits.dim() != 2 or logits.shape[0] != len(labels) or labels.dim() != 1:
        raise ValueError(
            f"loader: wanted labels [B] for logits [B, K], got labels {list(labels.shape)} and logits "
            f"{list(logits.shape)}."
        )
    if labels.is_floating_point():
        raise TypeError(f"loader: wanted integer labels, got {labels.dtype}.")
    wrong = ((labels < 0) | (labels >= logits.shape[1])).nonzero().flatten()
    if len(wrong):
        raise ValueError(f"loader: label {int(labels[wrong[0]])} is out of range for {logits.shape[1]} classes.")
