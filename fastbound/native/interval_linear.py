"""`interval_linear` by the library: matrix products of all streams at once, and of the radius with |W|."""

from __future__ import annotations

from torch import Tensor

from fastbound.native import product_on_cpu_and_cuda as unsupported
from fastbound.native.product import linear
from fastbound.native.signed_weight_grad import signed_weight_grad
from fastbound.primitives import PRODUCT_DTYPES as DTYPES
from fastbound.primitives import Gradients, as_rows

__all__ = ["DTYPES", "interval_linear_bwd", "interval_linear_fwd", "unsupported"]


def interval_linear_fwd(
    stack: Tensor,  # [N, *, I]
    radius: Tensor,  # [*, I]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
) -> tuple[Tensor, Tensor]:  # [N, *, O], [*, O]
    return linear(stack, weight, bias), linear(radius, weight.abs())


def interval_linear_bwd(
    grad_stack: Tensor | None,  # [N, *, O]
    grad_radius: Tensor | None,  # [*, O]
    stack: Tensor,  # [N, *, I]
    radius: Tensor,  # [*, I]
    weight: Tensor,  # [O, I]
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    d_stack = d_radius = d_weight = d_bias = None
    if grad_stack is not None:
        rows = as_rows(grad_stack)
        d_stack = linear(rows, weight.T).view(stack.shape) if needs[0] else None
        d_weight = linear(rows.T, as_rows(stack).T) if needs[2] else None
        d_bias = rows.sum(0) if needs[3] else None
    if grad_radius is not None:
        rows = as_rows(grad_radius)
        d_radius = linear(rows, weight.abs().T).view(radius.shape) if needs[1] else None
        if needs[2]:
            product = linear(rows.T, as_rows(radius).T)
            d_weight = signed_weight_grad(d_weight, product, weight)
    return d_stack, d_radius, d_weight, d_bias
