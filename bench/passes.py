"""Forward and backward of one call, for primitives and the plain layers that they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def forward_backward(function: Callable[..., Any], *args: Any) -> None:
    """Run ``function`` on ``args`` and push ones back through its outputs into the arguments that take gradients."""
    outputs = function(*args)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    wanted = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    torch.autograd.grad(outputs, wanted, [torch.ones_like(o) for o in outputs])


def leaf(*shape: int, channels_last: bool = False) -> Tensor:
    """A random tensor that takes a gradient."""
    x = torch.randn(shape)
    return (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()


def streams(*shape: int, channels_last: bool = False) -> tuple[Tensor, Tensor]:  # [2, *shape], [*shape]
    """Nominal and center, and a radius, that take gradients."""
    rows = leaf(2 * shape[0], *shape[1:], channels_last=channels_last)
    stack = rows.detach().unflatten(0, (2, shape[0])).requires_grad_()
    radius = leaf(*shape, channels_last=channels_last).detach().abs().requires_grad_()
    return stack, radius
