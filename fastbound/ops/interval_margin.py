"""`interval_margin`: margins of a linear classifier with the specification merged into its last layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import kept_from_autocast
from fastbound.ops.checks import refuse, require_labels


@kept_from_autocast
def interval_margin(
    radius: Tensor,  # [B, D]
    weight: Tensor,  # [K, D]
    labels: Tensor,  # [B], int64
) -> Tensor:  # [B, K - 1]
    """Radius ``|w_y - w_j| r`` of the margins z_y - z_j, j != y in increasing order, without a [B, K - 1, D] tensor.

    Args:
        radius: of the last layer's input, >= 0, float32 or float64.

    Raises:
        ValueError: shapes that do not match, labels outside [0, K), which only a CPU can see. TypeError: labels of
        another dtype. BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest. Source: Gowal et al., 2018, arXiv 1810.12715, section 3.
    """
    if radius.dim() != 2:
        refuse("interval_margin", "radius", "[B, D]", tuple(radius.shape), "flatten the features")
    if weight.dim() != 2 or weight.shape[1] != radius.shape[1] or weight.shape[0] < 1:
        wanted = f"[K, {radius.shape[1]}] for radius {tuple(radius.shape)}, K >= 1"
        refuse("interval_margin", "weight", wanted, tuple(weight.shape), "pass that of the last linear layer")
    require_labels("interval_margin", labels, radius, weight.shape[0])
    code = backends.find("interval_margin", radius, weight)
    if backends.needs_grad(radius, weight) and not torch.compiler.is_compiling():
        return _IntervalMargin.apply(code, radius, weight, labels)
    return code.interval_margin_fwd(radius, weight, labels)


class _IntervalMargin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, radius: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        ctx.code = code
        ctx.save_for_backward(radius, weight, labels)
        return code.interval_margin_fwd(radius, weight, labels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.code.interval_margin_bwd(grad, *ctx.saved_tensors, ctx.needs_input_grad[1:3]), None
