"""`crown_concretize`: the least value of linear functions on a box."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import kept_from_autocast
from fastbound.ops.checks import require_rows


@kept_from_autocast
def crown_concretize(
    rows: Tensor,  # [B, S, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
) -> Tensor:  # [B, S]
    """``rows . c - |rows| . r`` for each sample.

    Raises:
        ValueError: shapes that do not match. BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest; exact on a box in real arithmetic. Source: Zhang et al., 2018, arXiv 1811.00866.
    """
    require_rows("crown_concretize", rows, center, radius, 2)
    code = backends.find("crown_concretize", rows, center, radius)
    if backends.needs_grad(rows, center, radius) and not torch.compiler.is_compiling():
        return _CrownConcretize.apply(code, rows, center, radius)
    return code.crown_concretize_fwd(rows, center, radius)


class _CrownConcretize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, rows: Tensor, center: Tensor, radius: Tensor) -> Tensor:
        ctx.code = code
        ctx.save_for_backward(rows, center, radius)
        return code.crown_concretize_fwd(rows, center, radius)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.code.crown_concretize_bwd(grad, *ctx.saved_tensors, ctx.needs_input_grad[1:4])
