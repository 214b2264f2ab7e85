"""`interval_norm_relu`: BatchNorm as a per-channel affine map, then (leaky) ReLU, on all streams in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.checks import refuse, require_channels, require_norm, require_slope, require_streams
from fastbound.primitives import batch_norm


def interval_norm_relu_statistics(nominal: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of ``nominal`` [B, C, *], without gradient: `interval_norm_relu` has it.

    Raises:
        ValueError: maps without channels, or without a value in each of them.
    """
    require_channels("interval_norm_relu_statistics", "nominal", nominal)
    with torch.no_grad():
        return backends.find("interval_norm_relu", nominal).interval_norm_relu_statistics(nominal.detach())


def interval_norm_relu(
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None = None,  # [C], None: no affine map
    var: Tensor | None = None,  # [C]
    weight: Tensor | None = None,  # [C]
    bias: Tensor | None = None,  # [C]
    eps: float = 0.0,
    negative_slope: float = 0.0,
    batch_statistics: bool = False,
) -> tuple[Tensor, Tensor]:  # [N, B, C, *], [B, C, *]
    """``leaky_relu(norm(x))`` on nominal, center and radius.

    Args:
        stack: N = 2 streams (nominal, center) or N = 1 (center). radius: >= 0. Maps of float32, float64, bfloat16 or,
            on CUDA, float16. With maps in half precision, computations are in float32, and vectors of channels may be.
        mean, var: statistics, constants to autograd; the variance is biased.
        negative_slope: in [0, 1]; 0 is ReLU, 1 no activation.
        batch_statistics: mean and var are those of the nominal stream, and the gradient passes through them.

    Raises:
        ValueError: a slope outside [0, 1], shapes that do not match. BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest; with batch statistics, for the statistics frozen at the nominal batch.
    Source: Gowal et al., 2018, arXiv 1810.12715 (ReLU); Shi et al., 2021, arXiv 2103.17268 (BatchNorm).
    """
    args = (stack, radius, mean, var, weight, bias, eps, negative_slope, batch_statistics)
    return interval_norm_relu_with_box(*args)[:2]


def interval_norm_relu_with_box(
    stack: Tensor,
    radius: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 0.0,
    negative_slope: float = 0.0,
    batch_statistics: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [N, B, C, *] and three times [B, C, *]
    """`interval_norm_relu` that also returns the center and radius of x, for relaxations of the function.

    Their gradient is added to the function's own in place. If relaxations read x itself, autograd would add whole
    stacks.
    """
    args = (stack, radius, mean, var, weight, bias, eps, negative_slope, batch_statistics)
    check_arguments("interval_norm_relu", *args)
    code = backends.find("interval_norm_relu", radius, stack, mean, var, weight, bias)
    if torch.compiler.is_compiling():
        if batch_statistics:
            mean, var = batch_norm.statistics(stack[0])
    elif backends.needs_grad(stack, radius, weight, bias):
        settings = (eps, negative_slope, batch_statistics)
        return _IntervalNormRelu.apply(code, stack, radius, weight, bias, mean, var, settings)
    out = code.interval_norm_relu_fwd(stack, radius, mean, var, weight, bias, eps, negative_slope)
    return *out, stack[-1], radius


def check_arguments(
    op: str,
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    negative_slope: float,
    batch_statistics: bool,
) -> None:
    require_slope(op, negative_slope)
    require_streams(op, stack, radius)
    if batch_statistics and stack.shape[0] != 2:
        got = f"a stack of shape {tuple(stack.shape)}"
        refuse(op, "batch_statistics", "a nominal stream, which has them", got, "stack it before the center")
    require_norm(op, radius.shape, mean, var, weight, bias, eps, batch_statistics)


class _IntervalNormRelu(torch.autograd.Function):
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.code = code
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(stack, radius, mean, var, weight, bias)
        out = code.interval_norm_relu_fwd(stack, radius, mean, var, weight, bias, *settings[:2])
        return *out, stack.detach()[-1], radius.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,
        grad_stack: Tensor | None,
        grad_radius: Tensor | None,
        grad_center_before: Tensor | None,
        grad_radius_before: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        d_stack = d_radius = d_weight = d_bias = None
        saved = ctx.saved_tensors  # read once: activation checkpointing allows no second time
        stack, radius = saved[:2]
        if grad_stack is not None or grad_radius is not None:
            d_stack, d_radius, d_weight, d_bias = ctx.code.interval_norm_relu_bwd(
                grad_stack, grad_radius, *saved, *ctx.settings, ctx.needs_input_grad[1:5]
            )
        before = (grad_center_before, grad_radius_before)
        d_stack, d_radius = join_box((d_stack, d_radius), (grad_stack, grad_radius), before, (stack, radius))
        return None, d_stack, d_radius, d_weight, d_bias, None, None, None


def join_box(
    grads: tuple[Tensor | None, Tensor | None],
    given: tuple[Tensor | None, Tensor | None],
    before: tuple[Tensor | None, Tensor | None],
    like: tuple[Tensor, Tensor],
) -> tuple[Tensor | None, Tensor | None]:
    """`grads` of a stack and a radius, to which those of the returned box (`before`) are added in place."""
    d_stack, d_radius = grads
    if before[0] is not None:
        d_stack = _own(d_stack, given[0], like[0])
        d_stack[-1].add_(before[0])
    if before[1] is not None:
        d_radius = _own(d_radius, given[1], like[1]).add_(before[1])
    return d_stack, d_radius


def _own(gradient: Tensor | None, given: Tensor | None, like: Tensor) -> Tensor:
    """A gradient that may be written to: a copy if it is the `given` one, as an identity returns it."""
    if gradient is None:
        return torch.zeros_like(like)
    return gradient.clone() if gradient is given else gradient
