"""Max-pooling: a linear function below and one above the maximum of a window."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastbound.domains.records import MaxPool


def max_pool(
    record: MaxPool,
    rows: Tensor,  # [B, S, *outer, *out]
    center: Tensor,  # [B, *outer, *in]
    radius: Tensor,  # [B, *outer, *in]
) -> tuple[Tensor, Tensor]:  # [B, S, *outer, *in], [B, S]
    """Propagate rows backwards through the relaxation of a maximum.

    The lower function is the input with the largest lower bound. The upper one is the same input if its lower bound is
    at least the upper bounds of all others of the window, else the largest upper bound.

    Source: Boopathy et al., 2019, arXiv 1811.12395 (a constant above); Singh et al., 2019 (DeepPoly: dominating input).
    """
    spatial = len(record.kernel)
    size, out_size = center.shape[-spatial:], rows.shape[-spatial:]
    lower = _windows(center - radius, record, out_size, -math.inf)  # [B, *outer, P, K]
    upper = _windows(center + radius, record, out_size, -math.inf)
    places = torch.arange(size.numel(), device=center.device).view(1, *size)
    places = _windows(places, record, out_size, 0)[0]  # [P, K]
    best = lower.argmax(-1, keepdim=True)  # [B, *outer, P, 1]
    largest = lower.gather(-1, best).squeeze(-1)
    others = upper.scatter(-1, best, -math.inf).amax(-1)
    dominant = largest >= others
    constant = torch.where(dominant, 0.0, upper.amax(-1)).unsqueeze(1)  # [B, 1, *outer, P]
    place = places.expand(best.shape[:-2] + places.shape).gather(-1, best).squeeze(-1).unsqueeze(1)
    flat = rows.flatten(-spatial)  # [B, S, *outer, P]
    taken = torch.where((flat >= 0) | dominant.unsqueeze(1), flat, 0.0)
    zeros = rows.new_zeros(*flat.shape[:-1], size.numel())
    out = zeros.scatter_add(-1, place.expand(flat.shape), taken).unflatten(-1, tuple(size))
    return out, (flat.clamp(max=0) * constant).flatten(2).sum(2)


def _windows(x: Tensor, record: MaxPool, out_size: torch.Size, outside: float) -> Tensor:
    """The windows of maps [*, *in] as [*, P, K]: P positions in the order of the output, K inputs each."""
    spatial = len(record.kernel)
    first = x.dim() - spatial
    pads: list[int] = []
    indices = []
    for d in range(spatial):
        starts = torch.arange(out_size[d], device=x.device) * record.stride[d]
        index = starts.unsqueeze(1) + torch.arange(record.kernel[d], device=x.device) * record.dilation[d]
        indices.append(index)
        end = (out_size[d] - 1) * record.stride[d] + (record.kernel[d] - 1) * record.dilation[d] + 1
        pads = [record.padding[d], max(0, end - record.padding[d] - x.shape[first + d]), *pads]
    x = torch.nn.functional.pad(x, pads, value=outside)
    for d, index in enumerate(indices):
        x = x.index_select(first + 2 * d, index.flatten()).unflatten(first + 2 * d, tuple(index.shape))
    order = [*range(first), *(first + 2 * d for d in range(spatial)), *(first + 2 * d + 1 for d in range(spatial))]
    return x.permute(order).flatten(first + spatial).flatten(first, first + spatial - 1)
