"""`MinMax`: the activation of 1-Lipschitz networks."""

from __future__ import annotations

from typing import Any

from torch import nn

from fastbound.domains.interval.minmax import minmax


class MinMax(nn.Module):
    """Sorts each pair of adjacent channels, for tensors and abstract values [B, C, ...].

    Unlike ReLU it keeps the norm of gradients. In a channels-last order these pairs are adjacent features of the
    flattened map.

    Raises:
        ValueError: an odd number of channels.

    Source: Anil et al., 2019, arXiv 1811.05381 (as GroupSort 2); pairs as in Leino et al., 2021, arXiv 2102.08452.
    """

    def forward(self, x: Any) -> Any:
        return minmax(x)
