"""Projected gradient descent in the l_inf ball: the attack that checks certificates.

Source: Madry et al., 2018, arXiv 1706.06083 (signed gradient steps from random starts); the objective is the largest
margin of a wrong class.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastbound.certify.modes import evaluation_mode


@dataclass(frozen=True)
class Attack:
    """Settings of the attack: `steps` signed steps of `step_size` (fraction of eps) from each of `restarts` random
    starts.

    The default `step_size`, 2.5 / steps, reaches every corner of the ball from every start; the last quarter of the
    steps is ten times smaller.
    """

    steps: int = 20
    restarts: int = 1
    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"attack: wanted at least 1 step and 1 restart, got {self.steps} and {self.restarts}.")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"attack: wanted a positive step size, got {self.step_size}.")

    def size(self, step: int) -> float:
        """The size of this step as a fraction of eps."""
        size = 2.5 / self.steps if self.step_size is None else self.step_size
        return size if step < self.steps - self.steps // 4 else size / 10


def worst_margin(logits: Tensor, labels: Tensor) -> Tensor:  # [B, K], [B] -> [B]
    """Largest logit of a wrong class minus the label's: positive if the sample is misclassified."""
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.amax(1) - own


def random_point(
    low: Tensor,  # [B, ...]
    high: Tensor,  # [B, ...]
    generator: torch.Generator | None = None,
) -> Tensor:  # [B, ...]
    """A uniform point of the box, up to rounding."""
    return torch.lerp(low, high, torch.rand(low.shape, generator=generator, device=low.device, dtype=low.dtype))


def signed_step(
    point: Tensor,  # [B, ...]
    gradient: Tensor,  # [B, ...]
    size: float | Tensor,
    low: Tensor,  # [B, ...]
    high: Tensor,  # [B, ...]
) -> Tensor:  # [B, ...]
    """A step uphill that ends inside the box: the projection comes last, because start and step are rounded."""
    return torch.minimum(torch.maximum(point + size * gradient.sign(), low), high)


def pgd_attack(
    model: Callable[[Tensor], Tensor],
    x: Tensor,  # [B, ...]
    labels: Tensor,  # [B]
    eps: float | Tensor,
    *,
    attack: Attack | None = None,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Searches the box [max(x - eps, lower), min(x + eps, upper)] for misclassified points, in evaluation mode.

    Returns:
        points [B, ...]: the point of the largest worst margin seen, inside the box.
        broken [B] bool: that point is misclassified (argmax is not the label).

    Soundness: none; finding no point proves nothing.
    """
    low, high = (x - eps).clamp(min=lower), (x + eps).clamp(max=upper)
    return strongest_point(
        model,
        x,
        labels,
        attack or Attack(),
        lambda: random_point(low, high, generator),
        lambda point, gradient, size: signed_step(point, gradient, size * eps, low, high),
    )


def strongest_point(
    model: Callable[[Tensor], Tensor],
    x: Tensor,  # [B, ...]
    labels: Tensor,  # [B]
    attack: Attack,
    start: Callable[[], Tensor],
    step: Callable[[Tensor, Tensor, float], Tensor],
) -> tuple[Tensor, Tensor]:  # [B, ...], [B]
    """The search of `pgd_attack` with ``start()``, a random point, and ``step(point, gradient, size)``, a step uphill
    by a fraction of eps; both return points of the searched set."""
    points, best = x.detach().clone(), x.new_full((len(x),), -torch.inf)
    broken = torch.zeros_like(labels, dtype=torch.bool)
    mode = evaluation_mode(model) if isinstance(model, nn.Module) else nullcontext()
    with mode:
        for _ in range(attack.restarts):
            point = start()
            for index in range(attack.steps + 1):
                margin, wrong, gradient = _margin_and_gradient(model, point, labels)
                broken |= wrong
                points = torch.where(_per_sample(margin > best, x), point, points)
                best = torch.maximum(best, margin)
                point = step(point, gradient, attack.size(index))
    return points, broken


def _per_sample(mask: Tensor, like: Tensor) -> Tensor:  # [B], [B, ...] -> [B, 1, ...]
    return mask.view(-1, *[1] * (like.dim() - 1))


def _margin_and_gradient(
    model: Callable[[Tensor], Tensor], point: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Worst margin [B], whether the point is misclassified [B], and the margin's gradient in the point."""
    point = point.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(point)
        margin = worst_margin(logits, labels)
        (gradient,) = torch.autograd.grad(margin.sum(), point)
    return margin.detach(), logits.detach().argmax(1) != labels, gradient
