"""`crown_conv2d`: one backward step of linear bounds through a 2-D convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import lowered_by_autocast
from fastbound.ops.checks import refuse, require_convolution
from fastbound.primitives import Pair
from fastbound.primitives.convolution import as_kernel, as_map


@lowered_by_autocast
def crown_conv2d(
    rows: Tensor,  # [B, S, O, H', W']
    weight: Tensor,  # [O, C / groups, KH, KW]
    bias: Tensor | None,  # [O]
    size: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, Tensor]:  # [B, S, C, H, W], [B, S]
    """Linear functions of ``conv2d(x, W) + b`` as functions of x [B, C, *size]; on CPU the maps come out channels_last.

    Returns:
        The transposed convolution of the rows, and their bias ``sum rows b`` (zeros without bias).

    Raises:
        ValueError: shapes that do not match. BackendError: a requested backend cannot serve it.

    Soundness: rounded to nearest. Source: Zhang et al., 2018, arXiv 1811.00866.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        refuse("crown_conv2d", "size", "height and width of the convolution's input", repr(size), "write a tuple")
    outputs = require_convolution("crown_conv2d", "size", size, weight, bias, stride, padding, dilation, groups)
    if rows.shape[2:] != outputs:
        wanted = f"[B, S, {', '.join(map(str, outputs))}], the outputs for inputs of size {tuple(size)}"
        refuse("crown_conv2d", "rows", wanted, tuple(rows.shape), "size is that of the convolution's input")
    rows, weight = as_map(rows, 2), as_kernel(weight)
    code = backends.find("crown_conv2d", rows, weight, bias)
    geometry = (size, stride, padding, dilation, groups)
    if backends.needs_grad(rows, weight, bias) and not torch.compiler.is_compiling():
        return _CrownConv2d.apply(code, rows, weight, bias, geometry)
    return code.crown_conv2d_fwd(rows, weight, bias, *geometry)


class _CrownConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, code: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        ctx.code, ctx.geometry = code, geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, weight, bias)
        return code.crown_conv2d_fwd(rows, weight, bias, *geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_rows: Tensor | None, grad_bias: Tensor | None) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[1:4]
        return None, *ctx.code.crown_conv2d_bwd(grad_rows, grad_bias, *ctx.saved_tensors, *ctx.geometry, needs), None
