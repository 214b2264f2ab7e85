"""The gradient of a function of (W, |W|) with respect to W, in one C++ or CUDA pass."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import HALVES
from fastbound.native.layout import as_contiguous


def signed_weight_grad(
    grad: Tensor | None,  # [O, *]; None: zero
    grad_abs: Tensor,  # [O, *]
    weight: Tensor,  # [O, *]
) -> Tensor:  # [O, *]
    """``grad + sign(weight) * grad_abs`` with sign(0) = 0; float32 if the three are in half precision.

    Writes into ``grad`` if possible, and into ``grad_abs`` if ``grad`` is None.
    """
    if grad is None:
        return grad_abs.mul_(weight.sign())
    if grad.device.type == "cpu" and grad.dtype == torch.float16:
        return grad.float().addcmul_(weight.sign(), grad_abs)
    if not _in_same_order(grad, grad_abs, weight):  # row-major is the order of most parameters
        grad, grad_abs, weight = (as_contiguous(t) for t in (grad, grad_abs, weight))
    out = torch.empty_like(grad, dtype=torch.float32) if grad.dtype in HALVES else grad
    _C.signed_weight_grad(grad.numel(), grad, grad_abs, weight, out)
    return out


def _in_same_order(grad: Tensor, grad_abs: Tensor, weight: Tensor) -> bool:
    """Whether all three are dense and have their elements in the same memory order."""
    dense = weight.is_contiguous() or (weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last))
    return dense and grad.stride() == grad_abs.stride() == weight.stride()
