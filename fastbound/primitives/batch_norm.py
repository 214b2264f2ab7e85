"""A BatchNorm with given statistics is a per-channel affine map, ``x -> scale x + shift``."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_and_shift(
    mean: Tensor,  # [C]
    var: Tensor,  # [C], biased
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    fused: bool = False,
) -> tuple[Tensor, Tensor]:  # [C], [C]
    """``weight / sqrt(var + eps)`` and ``bias - mean scale``, differentiable.

    Args:
        fused: make the shift in one kernel in place of two. It may then be rounded once in place of twice.
    """
    scale = inverse_deviation(var, eps)
    if weight is not None:
        scale = scale * weight
    if bias is None:
        return scale, -mean * scale
    return scale, torch.addcmul(bias, mean, scale, value=-1) if fused else bias - mean * scale


def inverse_deviation(var: Tensor, eps: float) -> Tensor:  # [C] -> [C]
    """``1 / sqrt(var + eps)``."""
    return torch.rsqrt(var + eps)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:  # [B, C, *] -> [C], [C]
    """Mean and biased variance of each channel, differentiable."""
    var, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)
    return mean, var
