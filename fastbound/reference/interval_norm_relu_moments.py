"""`interval_norm_relu` with the moments of the bounds that enter the ReLU, summed over the whole batch.

With center c, radius r (after the affine map) and mu the mean of c, a unit of a sample is active if c - r > 0 and
inactive if c + r < 0. The moments [8] are

    sum r, sum c, active units, inactive units, sum c over active, sum c over inactive,
    sum (c - mu)^2 over active, sum (c - mu)^2 over inactive

which is all that the regularisers of Shi et al., 2021, arXiv 2103.17268 need of a layer. One pass is enough, because
sum (c - mu)^2 = sum c^2 - 2 mu sum c + n mu^2 over each mask. With M elements and g the gradient of the moments, the
gradient of every radius is g_0, and that of every center is

    g_1 - (2 / M) (g_6 sum_active (c - mu) + g_7 sum_inactive (c - mu))
    + active (g_4 + 2 g_6 (c - mu)) + inactive (g_5 + 2 g_7 (c - mu));

the counts and the masks have no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import Gradients
from fastbound.reference import interval_norm_relu as plain
from fastbound.reference.interval_norm_relu import GRADIENTS as GRADIENTS
from fastbound.reference.interval_norm_relu import samples as samples

# The backward takes `moments` as the forward returned them.
OUTPUTS = ("out_stack", "out_radius", "moments")


def interval_norm_relu_moments_fwd(
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C], None: no affine map
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, B, C, *], [B, C, *], [8]
    stack, radius = plain.normed(stack, radius, mean, var, weight, bias, eps)
    out = plain.interval_norm_relu_fwd(stack, radius, None, None, None, None, 0.0, slope)
    center = stack[-1]
    active, inactive = center - radius > 0, center + radius < 0
    spread = (center - center.sum() / max(center.numel(), 1)).square()
    terms = (radius, center, active, inactive, center * active, center * inactive, spread * active, spread * inactive)
    wide = torch.promote_types(radius.dtype, torch.float32)  # half precision overflows, and cannot count beyond 2048
    return *out, torch.stack([term.sum(dtype=wide) for term in terms])


def interval_norm_relu_moments_bwd(
    grad_stack: Tensor | None,  # [N, B, C, *]
    grad_radius: Tensor | None,  # [B, C, *]
    grad_moments: Tensor | None,  # [8]
    stack: Tensor,  # [N, B, C, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    moments: Tensor,  # [8]
    eps: float,
    slope: float,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    g_stack = torch.zeros_like(stack) if grad_stack is None else grad_stack
    g_radius = torch.zeros_like(radius) if grad_radius is None else grad_radius
    norm = (mean, var, weight, bias, eps)
    normed, width = plain.normed(stack, radius, *norm)
    g_stack, g_radius = plain.gate(g_stack, g_radius, normed, width, slope)
    if grad_moments is not None:
        g_center, g_width = _moments_bwd(grad_moments, normed[-1], width, moments)
        g_stack = torch.cat((g_stack[:-1], (g_stack[-1] + g_center).unsqueeze(0)))
        g_radius = g_radius + g_width
    return plain.interval_norm_relu_bwd(g_stack, g_radius, stack, radius, *norm, 1.0, batch_statistics, needs)


def _moments_bwd(
    grad: Tensor, center: Tensor, radius: Tensor, moments: Tensor
) -> tuple[Tensor, Tensor]:  # [8], [B, C, *], [B, C, *], [8] -> [B, C, *], []
    """The gradient of the moments with respect to center and radius."""
    size = max(center.numel(), 1)
    mean = moments[1] / size
    moved = -2 * (grad[6] * (moments[4] - mean * moments[2]) + grad[7] * (moments[5] - mean * moments[3]))
    active, inactive = center - radius > 0, center + radius < 0
    to_center = grad[1] + moved / size
    to_center = to_center + active * (grad[4] + 2 * grad[6] * (center - mean))
    return to_center + inactive * (grad[5] + 2 * grad[7] * (center - mean)), grad[0]


def rounding(*args: Any) -> tuple[int, tuple[Tensor, Tensor, Tensor]]:
    """The number of rounded operations in an output, and the magnitudes of its terms."""
    terms, (stack, ends) = plain.rounding(*args)
    normed, width = plain.normed(*args[:-1])
    center, radius = _magnitudes(*args[:-1])
    active, inactive = normed[-1] - width > 0, normed[-1] + width < 0
    spread = (center + center.sum() / max(center.numel(), 1)).square()
    exact = torch.zeros_like(center)  # counts are not rounded
    sums = (radius, center, exact, exact, center * active, center * inactive, spread * active, spread * inactive)
    return terms + 2 * radius.numel(), (stack, ends, torch.stack([term.sum() for term in sums]))


def rounding_bwd(grads: tuple[Tensor, Tensor, Tensor], args: tuple[Any, ...]) -> tuple[int, Gradients]:
    """The same for the gradients: those of the moments are added to the affine map's output."""
    g_stack, g_radius = plain.gate_magnitudes(*grads[:2], args[-1])
    center, _ = _magnitudes(*args[:-1])
    g = grads[2].abs()
    offset = center + center.sum() / max(center.numel(), 1)
    to_center = g[1] + 2 * (g[6] + g[7]) * (offset + offset.mean()) + g[4] + g[5]
    g_stack = torch.cat((g_stack[:-1], (g_stack[-1] + to_center).unsqueeze(0)))
    terms, magnitudes = plain.rounding_affine_bwd(g_stack, g_radius + g[0], args)
    return terms + 2 * center.numel(), magnitudes


def _magnitudes(
    stack: Tensor,
    radius: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:  # [B, C, *], [B, C, *]
    """The sums of the magnitudes of the terms of center and radius after the affine map."""
    negative_mean = None if mean is None else -mean.abs()  # the formula subtracts the mean's term: here it adds
    weight, bias = (None if t is None else t.abs() for t in (weight, bias))
    stack, radius = plain.normed(stack.abs(), radius, negative_mean, var, weight, bias, eps)
    return stack[-1], radius
