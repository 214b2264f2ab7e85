"""Adversarial points for training: projected gradient ascent on the cross-entropy inside a box.

Source: Madry et al., 2018, arXiv 1706.06083; a single step to a corner: Wong et al., 2020, arXiv 2001.03994.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from fastbound.certify.modes import evaluation_mode
from fastbound.certify.pgd import random_point, signed_step


def adversarial_points(
    model: nn.Module,
    lower: Tensor,  # [B, ...]
    upper: Tensor,  # [B, ...]
    labels: Tensor,  # [B]
    *,
    steps: int,
    step_size: float,
    decays: Sequence[float] = (),
) -> Tensor:  # [B, ...]
    """Points of the box [lower, upper] where the cross-entropy of `model` is large.

    The model is in evaluation mode during the search (BatchNorm uses its running statistics) and gets its mode back
    afterwards. The start is uniform, from torch's global generator. Returns the best point seen; with a single step it
    returns the end of that step, which saves a forward pass.

    Args:
        lower, upper: [B, ...], the box; points lie inside.
        labels: [B], integers.
        steps: signed gradient steps, at least 1.
        step_size: size of a step, in half-widths of the box in each dimension; 2 or more ends in a corner.
        decays: shares of the steps after which the step size is 10 times smaller, for example (0.5, 0.8).

    Soundness: none; there may be worse points.
    """
    # DistributedDataParallel expects a backward pass after every forward pass; an attack makes none through it.
    model = model.module if isinstance(model, DistributedDataParallel) else model
    half_width = (upper - lower) / 2
    point = random_point(lower, upper)
    best, highest = point, lower.new_full((len(lower),), -torch.inf)
    with evaluation_mode(model):
        for step in range(steps):
            loss, gradient = _loss_and_gradient(model, point, labels)
            best, highest = _larger(point, loss, best, highest)
            size = step_size * 0.1 ** sum(step >= math.ceil(share * steps) for share in decays)
            point = signed_step(point, gradient, size * half_width, lower, upper)
        if steps == 1:
            return point
        with torch.no_grad():
            loss = F.cross_entropy(model(point), labels, reduction="none")
    return _larger(point, loss, best, highest)[0]


def _loss_and_gradient(model: nn.Module, point: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # [B], [B, ...]
    point = point.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(model(point), labels, reduction="none")
        (gradient,) = torch.autograd.grad(loss.sum(), point)
    return loss.detach(), gradient


def _larger(
    point: Tensor, loss: Tensor, best: Tensor, highest: Tensor
) -> tuple[Tensor, Tensor]:  # [B, ...], [B], [B, ...], [B]
    better = loss >= highest
    return torch.where(better.view(-1, *[1] * (point.dim() - 1)), point, best), torch.where(better, loss, highest)
