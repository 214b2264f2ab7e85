"""`interval_norm_relu_moments`: `interval_norm_relu`, and in the same pass sums over the bounds that enter the ReLU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.interval_norm_relu import check_arguments, join_box
from fastbound.primitives import batch_norm


def interval_norm_relu_moments(
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None = None,  # [C], None: no affine map
    var: Tensor | None = None,  # [C]
    weight: Tensor | None = None,  # [C]
    bias: Tensor | None = None,  # [C]
    eps: float = 0.0,
    negative_slope: float = 0.0,
    batch_statistics: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, B, C, *], [B, C, *], [8]
    """`interval_norm_relu`, and the moments [8] of the bounds after the norm and before the ReLU.

    With center c, radius r and mu the mean of c, sums over all elements of: r; c; active units (c - r > 0); inactive
    units (c + r < 0); c of active; c of inactive; (c - mu)^2 of active; (c - mu)^2 of inactive. All but the counts are
    differentiable, through batch statistics too. They are float32 if the maps are in half precision.

    Args, Raises: as `interval_norm_relu`.

    Soundness: as `interval_norm_relu`; the moments are no bounds.
    Source: Shi et al., 2021, arXiv 2103.17268.
    """
    args = (stack, radius, mean, var, weight, bias, eps, negative_slope, batch_statistics)
    return interval_norm_relu_moments_with_box(*args)[:3]


def interval_norm_relu_moments_with_box(
    stack: Tensor,
    radius: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 0.0,
    negative_slope: float = 0.0,
    batch_statistics: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # [N, B, C, *], [B, C, *], [8] and twice [B, C, *]
    """The same, which also returns the box, as `interval_norm_relu_with_box` does."""
    args = (stack, radius, mean, var, weight, bias, eps, negative_slope, batch_statistics)
    check_arguments("interval_norm_relu_moments", *args)
    code = backends.find("interval_norm_relu_moments", radius, stack, mean, var, weight, bias)
    if torch.compiler.is_compiling():
        if batch_statistics:
            mean, var = batch_norm.statistics(stack[0])
    elif backends.needs_grad(stack, radius, weight, bias):
        settings = (eps, negative_slope, batch_statistics)
        return _IntervalNormReluMoments.apply(code, stack, radius, weight, bias, mean, var, settings)
    out = code.interval_norm_relu_moments_fwd(stack, radius, mean, var, weight, bias, eps, negative_slope)
    return *out, stack[-1], radius


class _IntervalNormReluMoments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        code: Any,
        stack: Tensor,
        radius: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        settings: tuple[float, float, bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        ctx.code = code
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        out = code.interval_norm_relu_moments_fwd(stack, radius, mean, var, weight, bias, *settings[:2])
        ctx.save_for_backward(stack, radius, mean, var, weight, bias, out[2].clone())  # the caller may write to its own
        return *out, stack.detach()[-1], radius.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,
        grad_stack: Tensor | None,
        grad_radius: Tensor | None,
        grad_moments: Tensor | None,
        grad_center_before: Tensor | None,
        grad_radius_before: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        d_stack = d_radius = d_weight = d_bias = None
        saved = ctx.saved_tensors  # once: a checkpoint gives them one time
        grads = (grad_stack, grad_radius, grad_moments)
        if any(grad is not None for grad in grads):
            d_stack, d_radius, d_weight, d_bias = ctx.code.interval_norm_relu_moments_bwd(
                *grads, *saved, *ctx.settings, ctx.needs_input_grad[1:5]
            )
        before = (grad_center_before, grad_radius_before)
        d_stack, d_radius = join_box((d_stack, d_radius), (grad_stack, grad_radius), before, saved[:2])
        return None, d_stack, d_radius, d_weight, d_bias, None, None, None
