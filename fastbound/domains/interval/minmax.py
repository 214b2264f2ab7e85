"""`minmax`: the activation that sorts pairs of channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from fastbound.domains.interval.value import Interval
from fastbound.domains.rules import rule


def minmax(input: Tensor) -> Tensor:  # [B, C, ...], C even
    """Channels 2i and 2i + 1 become their minimum and their maximum, in the shape of the input.

    Raises ValueError for an odd number of channels. Source: Anil et al., 2019, arXiv 1811.05381 (as GroupSort 2);
    pairs as in Leino et al., 2021, arXiv 2102.08452.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(minmax, (input,), input)
    if input.dim() < 2 or input.shape[1] % 2:
        raise ValueError(
            f"MinMax: wanted [B, C, ...] with an even number of channels, got {list(input.shape)}; it sorts pairs of "
            "channels. Use an even width, or ReLU."
        )
    pairs = input.unflatten(1, (-1, 2))
    return torch.stack(pairs.aminmax(dim=2), 2).flatten(1, 2)


@rule(Interval, minmax)
def interval_minmax(input: Interval) -> Interval:
    """Minimum and maximum are monotone, so they map lower bounds to lower bounds and upper to upper, exactly."""
    nominal = input.nominal
    return Interval.from_bounds(minmax(input.lower), minmax(input.upper), None if nominal is None else minmax(nominal))
