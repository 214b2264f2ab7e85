"""Full CROWN: the bounds before every non-linear function, tightened by backward passes of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.crown.options import Options
from fastbound.crown.relu_family import exact_where_stable
from fastbound.crown.sparse import Units
from fastbound.crown.walk import Path, PreActivationBounds
from fastbound.domains.records import (
    Convolution,
    Elementwise,
    Linear,
    Norm,
    RelaxedRecord,
    Reshape,
    Scale,
    Shift,
    Source,
)
from fastbound.domains.tape import Node
from fastbound.ops.layout import flat_samples
from fastbound.shapes import Hinge


def tightened_bounds(path: Path) -> PreActivationBounds:
    """Bounds before every non-linear function on the path; each backward pass uses the bounds tightened so far."""
    bounds = PreActivationBounds()
    for node in reversed(path.order):
        if isinstance(node.record, RelaxedRecord):
            parent = node.inputs[0]
            if not bounds.is_tightened(parent) and not _is_exact(parent):
                _tighten(parent, node, path.options, bounds)
    return bounds


def _is_exact(node: Node) -> bool:
    """Whether interval bounds are exact: at most one layer with weights after the box, up to scales and shifts."""
    products = 0
    while not isinstance(node.record, Source):
        products += isinstance(node.record, (Linear, Convolution))
        known = (Linear, Convolution, Norm, Reshape, Scale, Shift)
        if products > 1 or not isinstance(node.record, known) or node.inputs[0].shape[0] != node.shape[0]:
            return False
        node = node.inputs[0]
    return True


def _tighten(node: Node, activation: Node, options: Options, bounds: PreActivationBounds) -> None:
    """Intersect the bounds of ``node``, the input of ``activation``, with those of a backward pass."""
    path = Path(node, options)
    center, radius = node.center, node.radius
    lower, upper = flat_samples(center - radius), flat_samples(center + radius)
    index = _elements_to_tighten(node, activation, options.relaxation)
    if index.shape[1] == 0:
        return
    new_lower, new_upper = [], []
    step = max(1, options.rows_within(2 * path.row_bytes))
    for part in index.split(step, 1):
        both = path.lower(_signed_units(node, part), bounds)
        new_lower.append(both[:, : part.shape[1]])
        new_upper.append(-both[:, part.shape[1] :])
    lower = lower.scatter(1, index, torch.maximum(torch.cat(new_lower, 1), lower.gather(1, index)))
    upper = upper.scatter(1, index, torch.minimum(torch.cat(new_upper, 1), upper.gather(1, index)))
    # If rounding let the two bounds cross, the interval between them contains both.
    center, radius = (lower + upper) / 2, (upper - lower).abs() / 2
    bounds.replace(node, center.view(node.shape), radius.view(node.shape))


@torch.no_grad()
def _elements_to_tighten(node: Node, activation: Node, relaxation: str) -> Tensor:  # [B, U]
    """The elements whose relaxation is not exact; the same number for every sample."""
    center, radius = flat_samples(node.center), flat_samples(node.radius)
    record = activation.record
    hinged = isinstance(record, Elementwise) and isinstance(record.function.shape, Hinge)
    stays = hinged and exact_where_stable(relaxation)
    unstable = center.abs() < radius if stays else radius > 0
    count = int(unstable.sum(1).max())
    return unstable.to(torch.uint8).topk(count, 1).indices.sort(1).values


def _signed_units(node: Node, index: Tensor) -> Units:  # [B, U] -> 2 U rows
    """Rows that select the elements ``index`` of a node, then their negatives."""
    ones = node.radius.new_ones(index.shape)
    return Units(torch.cat((index, index), 1), torch.cat((ones, -ones), 1), node.shape[1:])
