"""`interval_conv2d`: interval bounds through a 2-D convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import maps_lowered_by_autocast, read_as
from fastbound.ops.checks import refuse, require_convolution, require_streams
from fastbound.primitives import Pair
from fastbound.primitives.convolution import as_kernel, as_map


@maps_lowered_by_autocast
def interval_conv2d(
    stack: Tensor,  # [N, B, C, H, W]
    radius: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [O, C / groups, KH, KW]
    bias: Tensor | None = None,  # [O]
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, Tensor]:  # [N, B, O, H', W'], [B, O, H', W']
    """Center (and nominal) through W, radius through |W|, with zero padding; on CPU the maps come out channels_last.

    Args:
        stack: N = 2 streams (nominal, center) or N = 1 (center). radius: >= 0. float32, float64, bfloat16 or float16;
            inside ``torch.autocast`` float32 maps are read, and results returned, in autocast's dtype.
        weight, bias: in the dtype of the maps; for maps in half precision also float32, rounded when they are read.

    Raises:
        ValueError: shapes that do not match. BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest. Source: Gowal et al., 2018, arXiv 1810.12715.
    """
    if radius.dim() != 4:
        refuse("interval_conv2d", "radius", "[B, C, H, W]", tuple(radius.shape), "unsqueeze or flatten it")
    window = (stride, padding, dilation, groups)
    require_convolution("interval_conv2d", "radius", radius.shape[2:], weight, bias, *window)
    if radius.shape[1] != weight.shape[1] * groups:
        wanted = f"[B, {weight.shape[1] * groups}, H, W] for weight {tuple(weight.shape)} with groups={groups}"
        refuse("interval_conv2d", "radius", wanted, tuple(radius.shape), "pass maps of that many channels")
    require_streams("interval_conv2d", stack, radius)
    stack, radius, weight = as_map(stack, 2), as_map(radius, 2), as_kernel(weight)
    code = backends.find("interval_conv2d", radius, stack, parameters=(weight, bias))
    if backends.needs_grad(stack, radius, weight, bias) and not torch.compiler.is_compiling():
        return _IntervalConv2d.apply(code, stack, radius, weight, bias, *window)
    parameters = read_as(radius.dtype, weight, bias)
    return code.interval_conv2d_fwd(stack, radius, *parameters, *window)


class _IntervalConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, code: Any, stack: Tensor, radius: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.code = code
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        weight, bias = read_as(radius.dtype, weight, bias)
        ctx.save_for_backward(stack, radius, weight)
        return code.interval_conv2d_fwd(stack, radius, weight, bias, *geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_stack: Tensor | None, grad_radius: Tensor | None) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[1:5]
        grads = ctx.code.interval_conv2d_bwd(grad_stack, grad_radius, *ctx.saved_tensors, *ctx.geometry, needs)
        return None, *grads, None, None, None, None
