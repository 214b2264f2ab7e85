"""`crown_linear`: one backward step of linear bounds through a linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import lowered_by_autocast
from fastbound.ops.checks import refuse, require_linear


@lowered_by_autocast
def crown_linear(
    rows: Tensor,  # [B, S, *, O]
    weight: Tensor,  # [O, I]
    bias: Tensor | None = None,  # [O]
) -> tuple[Tensor, Tensor]:  # [B, S, *, I], [B, S]
    """Linear functions of ``x W^T + b`` as functions of x: ``rows W``, and ``rows . b`` (zeros without bias).

    Raises:
        ValueError: shapes that do not match. BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest. Source: Zhang et al., 2018, arXiv 1811.00866.
    """
    require_linear("crown_linear", weight, bias)
    if rows.dim() < 3 or rows.shape[-1] != weight.shape[0]:
        wanted = f"[B, S, *, {weight.shape[0]}] for weight {tuple(weight.shape)}"
        refuse("crown_linear", "rows", wanted, tuple(rows.shape), "pass functions of this layer's outputs")
    code = backends.find("crown_linear", rows, weight, bias)
    if backends.needs_grad(rows, weight, bias) and not torch.compiler.is_compiling():
        return _CrownLinear.apply(code, rows, weight, bias)
    return code.crown_linear_fwd(rows, weight, bias)


class _CrownLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.code = code
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, weight, bias)
        return code.crown_linear_fwd(rows, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_rows: Tensor | None, grad_bias: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *ctx.code.crown_linear_bwd(grad_rows, grad_bias, *ctx.saved_tensors, ctx.needs_input_grad[1:4])
