"""Interval bounds of ``x W^T + b``.

In center and radius: ``c' = c W^T + b``, ``r' = r |W|^T`` (Gowal et al., 2018, arXiv 1810.12715, section 3).
Backward: ``dc = dc' W``, ``dr = dr' |W|``, ``dW = dc'^T c + sign(W) * (dr'^T r)`` with sign(0) = 0; the nominal
stream adds to dW as the center does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.primitives import PRODUCT_DTYPES as DTYPES  # noqa: F401
from fastbound.primitives import Gradients, as_rows


def interval_linear_fwd(
    stack: Tensor,  # [N, *, I]
    radius: Tensor,  # [*, I]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
) -> tuple[Tensor, Tensor]:  # [N, *, O], [*, O]
    return F.linear(stack, weight, bias), F.linear(radius, weight.abs())


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
        d_stack = grad_stack @ weight if needs[0] else None
        if needs[2]:
            d_weight = as_rows(grad_stack).T @ as_rows(stack)
        d_bias = as_rows(grad_stack).sum(0) if needs[3] else None
    if grad_radius is not None:
        d_radius = grad_radius @ weight.abs() if needs[1] else None
        if needs[2]:
            product = as_rows(grad_radius).T @ as_rows(radius)
            d_weight = signed_sum(d_weight, product, weight)
    return d_stack, d_radius, d_weight, d_bias


def signed_sum(grad: Tensor | None, grad_abs: Tensor, weight: Tensor) -> Tensor:  # all of the shape of weight
    """``grad + sign(W) grad_abs``; in float32 if they are in half precision."""
    if grad is None:
        return weight.sign() * grad_abs
    dtype = torch.promote_types(grad.dtype, torch.float32)
    return grad.to(dtype) + weight.sign() * grad_abs.to(dtype)


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``interval_linear_fwd``: weights of both signs with exact zeros."""

    def make(streams: int, batch: tuple[int, ...], features: int, outputs: int, bias: bool = True) -> tuple[Any, ...]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

        weight = normal(outputs, features)
        weight[torch.rand(weight.shape, generator=generator).to(device) < 0.1] = 0
        stack = normal(streams, *batch, features)
        return stack, normal(*batch, features).abs(), weight, normal(outputs) if bias else None

    return [
        ("plain", make(2, (5,), 7, 3)),
        ("no bias", make(2, (4,), 33, 9, bias=False)),
        ("center only", make(1, (3,), 65, 17)),
        ("sequence", make(2, (2, 3), 8, 5)),
        ("single", make(2, (1,), 1, 1)),
        ("empty batch", make(2, (0,), 4, 3)),
        ("large", make(2, (16,), 300, 130)),
        ("one vector", make(2, (), 5, 3)),
        ("no features", make(2, (3,), 0, 4)),
        ("no outputs", make(2, (3,), 4, 0)),
    ]
