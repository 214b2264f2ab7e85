"""The logarithm of a softmax: exact for each output; a margin of it is the margin of the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.location import module_path
from fastbound.domains.records import LogSoftmax
from fastbound.domains.rules import rule
from fastbound.domains.streams import emit


@rule(Interval, torch.log_softmax)
def log_softmax(input: Interval, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Interval:
    """Each output increases with its own logit and decreases with all others."""
    if dim is None or dtype not in (None, input.dtype):
        raise NotImplementedError(f"log_softmax{module_path()}: wanted a dim and no dtype, got {dim} and {dtype}.")
    dim = range(input.dim())[dim]  # from 0; raises IndexError for a dimension that there is not
    lower, upper, nominal = input.lower, input.upper, input.nominal
    streams = streams_of(
        -torch.nn.functional.softplus(_others(upper, dim) - lower, threshold=_EXACT),
        -torch.nn.functional.softplus(_others(lower, dim) - upper, threshold=_EXACT),
        None if nominal is None else nominal.log_softmax(dim),
    )
    return emit(LogSoftmax(dim), (input,), *streams)


# Above it torch's softplus returns its input, which is exact in float64.
_EXACT = 40.0


def _others(x: Tensor, dim: int) -> Tensor:
    """The logarithm of the sum of exponentials of all other elements of a dimension, from both sides without
    cancellation; minus infinity if there is no other."""
    before = torch.logcumsumexp(x, dim).roll(1, dim)
    after = torch.logcumsumexp(x.flip(dim), dim).roll(1, dim).flip(dim)
    size = x.shape[dim]
    place = torch.arange(size, device=x.device).view(-1, *(1,) * (x.dim() - 1 - dim))
    return torch.logaddexp(torch.where(place > 0, before, -torch.inf), torch.where(place < size - 1, after, -torch.inf))
