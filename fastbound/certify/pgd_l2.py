"""Projected gradient descent in the l2 ball.

Source: Madry et al., 2018, arXiv 1706.06083 (steps along the gradient from random starts); the objective is the largest
margin of a wrong class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastbound.certify.pgd import Attack, strongest_point

# Points stay this far inside the ball, relative to its radius, so that rounding does not carry them out of it.
INSIDE = 1 - 1e-6


def pgd_attack_l2(
    model: Callable[[Tensor], Tensor],
    x: Tensor,  # [B, ...]
    labels: Tensor,  # [B]
    eps: float,
    *,
    attack: Attack | None = None,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Searches the l2 ball of radius eps around each input, within [lower, upper], for misclassified points, in
    evaluation mode.

    Args:
        x: inputs in [lower, upper].

    Returns:
        points [B, ...]: the point of the largest worst margin seen, inside the ball.
        broken [B] bool: that point is misclassified (argmax is not the label).

    Soundness: none; finding no point proves nothing.
    """

    def projected(move: Tensor) -> Tensor:
        # x is inside the range, so clipping moves no element away from x.
        return (x + _shortened(move, eps * INSIDE)).clamp(min=lower).clamp(max=upper)

    def start() -> Tensor:
        """Uniform in the ball, up to the clipping."""
        direction = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        share = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype) ** (1 / x[0].numel())
        return projected(_unit(direction) * (eps * _like(share, x)))

    def step(point: Tensor, gradient: Tensor, size: float) -> Tensor:
        return projected(point + size * eps * _unit(gradient) - x)

    return strongest_point(model, x, labels, attack or Attack(), start, step)


def _norms(x: Tensor) -> Tensor:  # [B, ...] -> [B, 1, ...]
    return _like(torch.linalg.vector_norm(x.flatten(1), dim=1), x)


def _unit(x: Tensor) -> Tensor:
    """Each sample scaled to norm 1; a sample of zeros stays zero."""
    return x / _norms(x).clamp(min=torch.finfo(x.dtype).tiny)


def _shortened(x: Tensor, radius: float) -> Tensor:
    return x * (radius / _norms(x).clamp(min=radius))


def _like(values: Tensor, x: Tensor) -> Tensor:  # [B] -> [B, 1, ...]
    return values.view(-1, *[1] * (x.dim() - 1))
