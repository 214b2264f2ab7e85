"""The logarithm of a softmax, ``z - lse(z)``: rows whose coefficients add up to 0, as those of a margin, are exact."""

from __future__ import annotations

from torch import Tensor

from fastbound.crown.walk import Walk, backward_rule
from fastbound.domains.records import LogSoftmax
from fastbound.domains.tape import Node


@backward_rule(LogSoftmax)
def _log_softmax(walk: Walk, node: Node, rows: Tensor) -> None:  # [B, S, *]
    """Lower bounds of the term -s lse(z) of a row, with s the sum of its coefficients.

    For s > 0 it is bounded by the largest value of lse on the box, for s < 0 by the tangent plane of lse at the center,
    because lse is convex.
    """
    parent = node.inputs[0]
    center, radius = walk.bounds.of(parent)
    dim = node.record_as(LogSoftmax).dim
    total = rows.sum(dim + 1, keepdim=True)  # [B, S, *] with 1 at dim
    positive, negative = total.clamp(min=0), total.clamp(max=0)
    share = center.softmax(dim)
    largest = (center + radius).logsumexp(dim, keepdim=True)
    at_center = center.logsumexp(dim, keepdim=True) - (share * center).sum(dim, keepdim=True)
    constant = positive * largest.unsqueeze(1) + negative * at_center.unsqueeze(1)
    walk.add_constant(-constant.flatten(2).sum(2))
    walk.propagate_to(parent, rows - negative * share.unsqueeze(1))
