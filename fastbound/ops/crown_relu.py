"""`crown_relu`: one backward step of linear bounds through a (leaky) ReLU and the affine map before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.checks import refuse, require_choice, require_rows, require_slope, require_vector
from fastbound.primitives.crown_relu import RELAXATIONS, reads_output


def crown_relu(
    rows: Tensor,  # [B, S, C, *]
    center: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    scale: Tensor | None = None,  # [C]
    shift: Tensor | None = None,  # [C]
    offset: Tensor | None = None,  # [C]
    negative_slope: float = 0.0,
    relaxation: str = "adaptive",
) -> tuple[Tensor, Tensor]:  # [B, S, C, *], [B, S]
    """Lower linear functions of ``leaky_relu(scale x + shift)`` as lower linear functions of x, for x in a box.

    Args:
        rows: S functions a sample. center, radius: the box of x. All float32 or float64.
        scale, shift: the affine map per channel, both or neither.
        offset: the constant part of ``scale x + shift`` per channel: ``shift``, plus ``scale`` times a bias that x
            contains and that the rule of x then leaves out.
        negative_slope: in [0, 1]; 0 is ReLU.
        relaxation: the lower line of unstable neurons: ``"adaptive"``, ``"same-slope"``, ``"zero"`` or ``"one"``.

    Returns:
        Rows over x, and the constant that the step adds to the bias of each function. For upper bounds, negate the rows
        and the result.

    Raises:
        ValueError: a slope outside [0, 1], an unknown relaxation, shapes that do not match.
        BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest; both lines hold on the whole box without a guarded denominator.
    Source: Zhang et al., 2018, arXiv 1811.00866; Zhang et al., 2020, arXiv 1906.06316.
    """
    require_slope("crown_relu", negative_slope)
    require_choice("crown_relu", "relaxation", relaxation, RELAXATIONS)
    require_rows("crown_relu", rows, center, radius, 3)
    if (scale is None) != (shift is None):
        name = "scale" if scale is None else "shift"
        refuse("crown_relu", name, "a tensor [C]", None, "pass both scale and shift, or neither")
    for name, vector in (("scale", scale), ("shift", shift), ("offset", offset)):
        require_vector("crown_relu", name, vector, center.shape[1], "channel of center", center.shape)
    code = backends.find("crown_relu", rows, center, radius, scale, shift, offset)
    settings = (negative_slope, relaxation)
    tensors = (rows, center, radius, scale, shift, offset)
    if backends.needs_grad(*tensors) and not torch.compiler.is_compiling():
        return _CrownRelu.apply(code, *tensors, settings)
    return code.crown_relu_fwd(*tensors, *settings)


class _CrownRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, *args: Any) -> tuple[Tensor, Tensor]:
        rows, *tensors, ctx.settings = args
        ctx.code = code
        ctx.set_materialize_grads(False)
        out_rows, out_bias = code.crown_relu_fwd(rows, *tensors, *ctx.settings)
        kept = (None, out_rows) if reads_output(rows.dtype, tensors[2]) else (rows, None)
        ctx.save_for_backward(*kept, *tensors)
        return out_rows, out_bias

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_rows: Tensor | None, grad_bias: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_rows is None and grad_bias is None:
            return (None,) * 8
        needs = ctx.needs_input_grad[1:7]
        grads = ctx.code.crown_relu_bwd(grad_rows, grad_bias, *ctx.saved_tensors, *ctx.settings, needs)
        return None, *grads, None
