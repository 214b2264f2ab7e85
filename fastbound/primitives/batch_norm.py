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
) -> tuple[Tensor, Tensor]:  # [C], [C]
    """``weight / sqrt(var + eps)`` and ``bias - mean scale``, differentiable."""
    scale = scale_of(var, weight, eps)
    return scale, -mean * scale if bias is None else bias - mean * scale


def scale_of(var: Tensor, weight: Tensor | None, eps: float) -> Tensor:  # [C], [C] -> [C]
    """``weight / sqrt(var + eps)``, differentiable."""
    inverse = inverse_deviation(var, eps)
    return inverse if weight is None else inverse * weight


def inverse_deviation(var: Tensor, eps: float) -> Tensor:  # [C] -> [C]
    """``1 / sqrt(var + eps)``."""
    return torch.rsqrt(var + eps)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:  # [B, C, *] -> [C], [C]
    """Mean and biased variance of each channel, differentiable."""
    var, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)
    return mean, var
