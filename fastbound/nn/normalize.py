"""`Normalize`: mean and standard deviation as a layer, so that boxes and eps stay in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """``(x - mean) / std`` per channel, for tensors and abstract values [B, C, ...].

    Args:
        mean, std: C numbers each, std > 0.

    Raises:
        ValueError: lengths that differ, or a standard deviation that is not positive.
    """

    mean: Tensor  # [C]
    std: Tensor  # [C]

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.get_default_dtype()).flatten())
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.get_default_dtype()).flatten())
        if self.mean.shape != self.std.shape or not (self.std > 0).all():
            raise ValueError(f"Normalize: wanted as many means as standard deviations > 0, got {mean} and {std}.")

    def forward(self, x: Any) -> Any:
        shape = (-1,) + (1,) * (x.dim() - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def extra_repr(self) -> str:
        return f"mean={self.mean.tolist()}, std={self.std.tolist()}"
