"""`singleprop_norm_relu`: BatchNorm as a per-channel affine map, then ReLU, on SingleProp's two streams in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.checks import require_choice, require_like, require_norm
from fastbound.primitives import batch_norm
from fastbound.primitives.singleprop_norm_relu import VARIANTS


def singleprop_norm_relu(
    nominal: Tensor,  # [B, C, *], without norm any shape
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None = None,  # [C], None: no affine map
    var: Tensor | None = None,  # [C]
    weight: Tensor | None = None,  # [C]
    bias: Tensor | None = None,  # [C]
    eps: float = 0.0,
    variant: str | None = "zero",
    batch_statistics: bool = False,
) -> tuple[Tensor, Tensor]:  # [B, C, *], [B, C, *]
    """``relu(norm(z))`` and the radius e(z, v) that SingleProp assumes around it.

    Args:
        nominal: the clean activations z. radius: v >= 0. Maps as those of `interval_norm_relu`.
        mean, var: statistics, constants to autograd; the variance is biased.
        variant: e of the unstable neurons, ``"zero"`` or ``"fast-lin"``; None for the affine map alone.
        batch_statistics: mean and var are those of ``nominal``, and the gradient passes through them.

    Raises:
        ValueError: an unknown variant, shapes that do not match. BackendError: a requested backend cannot serve it.

    Soundness: none; [relu(z) - e, relu(z) + e] need not contain relu([z - v, z + v]).
    Source: Boopathy et al., 2021, arXiv 2102.01208.
    """
    if variant is not None:
        require_choice("singleprop_norm_relu", "variant", variant, VARIANTS)
    require_like("singleprop_norm_relu", "radius", radius, "nominal", nominal)
    require_norm("singleprop_norm_relu", radius.shape, mean, var, weight, bias, eps, batch_statistics)
    code = backends.find("singleprop_norm_relu", radius, nominal, mean, var, weight, bias)
    if torch.compiler.is_compiling():
        if batch_statistics:
            mean, var = batch_norm.statistics(nominal)
    elif backends.needs_grad(nominal, radius, weight, bias):
        settings = (eps, variant, batch_statistics)
        return _SinglePropNormRelu.apply(code, nominal, radius, weight, bias, mean, var, settings)
    return code.singleprop_norm_relu_fwd(nominal, radius, mean, var, weight, bias, eps, variant)


class _SinglePropNormRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        code: Any,
        nominal: Tensor,
        radius: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        settings: tuple[float, str | None, bool],
    ) -> tuple[Tensor, Tensor]:
        ctx.code = code
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(nominal, radius, mean, var, weight, bias)
        return code.singleprop_norm_relu_fwd(nominal, radius, mean, var, weight, bias, *settings[:2])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_nominal: Tensor | None, grad_radius: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_nominal is None and grad_radius is None:
            return (None,) * 8
        grads = ctx.code.singleprop_norm_relu_bwd(
            grad_nominal, grad_radius, *ctx.saved_tensors, *ctx.settings, ctx.needs_input_grad[1:5]
        )
        return None, *grads, None, None, None
