"""`interval_linear`: interval bounds through a linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import maps_lowered_by_autocast, read_as
from fastbound.ops.checks import refuse, require_linear, require_streams


@maps_lowered_by_autocast
def interval_linear(
    stack: Tensor,  # [N, *, I]
    radius: Tensor,  # [*, I]
    weight: Tensor,  # [O, I]
    bias: Tensor | None = None,  # [O]
) -> tuple[Tensor, Tensor]:  # [N, *, O], [*, O]
    """Center (and nominal) through W, radius through |W|; nominal and center share one product.

    Args:
        stack: N = 2 streams (nominal, center) or N = 1 (center). radius: >= 0. float32, float64, bfloat16 or float16;
            inside ``torch.autocast`` float32 maps are read, and results returned, in autocast's dtype.
        weight, bias: in the dtype of the maps; for maps in half precision also float32, rounded when they are read.

    Raises:
        ValueError: shapes that do not match. BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest. Source: Gowal et al., 2018, arXiv 1810.12715.
    """
    require_linear("interval_linear", weight, bias)
    if radius.shape[-1:] != weight.shape[1:]:
        wanted = f"[*, {weight.shape[1]}] for weight {tuple(weight.shape)}"
        refuse("interval_linear", "radius", wanted, tuple(radius.shape), "features are the last dimension")
    require_streams("interval_linear", stack, radius)
    code = backends.find("interval_linear", radius, stack, parameters=(weight, bias))
    if backends.needs_grad(stack, radius, weight, bias) and not torch.compiler.is_compiling():
        return _IntervalLinear.apply(code, stack, radius, weight, bias)
    return code.interval_linear_fwd(stack, radius, *read_as(radius.dtype, weight, bias))


class _IntervalLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, code: Any, stack: Tensor, radius: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.code = code
        ctx.set_materialize_grads(False)
        weight, bias = read_as(radius.dtype, weight, bias)
        ctx.save_for_backward(stack, radius, weight)
        return code.interval_linear_fwd(stack, radius, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_stack: Tensor | None, grad_radius: Tensor | None) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[1:]
        return None, *ctx.code.interval_linear_bwd(grad_stack, grad_radius, *ctx.saved_tensors, needs)
