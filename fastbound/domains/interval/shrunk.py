"""`ShrunkInterval`: intervals that are shrunk at unstable ReLUs. A training surrogate, not a bound.

Source: Mueller et al., 2023, arXiv 2210.04871 (SABR), the variant for CIFAR-10 at 2/255.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastbound.domains.interval.elementwise import leaky_relu
from fastbound.domains.interval.value import Interval
from fastbound.domains.location import module_path
from fastbound.domains.records import Opaque
from fastbound.domains.rules import rule
from fastbound.domains.streams import emit
from fastbound.domains.tape import Node


class ShrunkInterval(Interval):
    """An `Interval` that replaces the upper bound u of an unstable ReLU by (1 - shrink / 2) u, so it is not a bound.

    Args:
        box: the box to start from.
        shrink: in [0, 1]; 0 is the interval domain itself.

    Every torch function but ReLU follows the rules of `Interval`; backward bounds raise an error at a shrunk ReLU.

    Soundness: none. Certify with an `Interval`.
    """

    settings = ("shrink",)

    def __init__(self, box: Interval | Node, shrink: float) -> None:
        super().__init__(box.node if isinstance(box, Interval) else box)
        self.shrink = shrink

    def handle(self, node: Node) -> ShrunkInterval:
        return ShrunkInterval(node, self.shrink)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        rebuild, (_, *streams) = super().__reduce__()
        return _rebuild, (self.shrink, rebuild, *streams)


def _rebuild(shrink: float, rebuild: Callable[..., Interval], *streams: Tensor) -> ShrunkInterval:
    return ShrunkInterval(rebuild(Interval, *streams), shrink)


@rule(ShrunkInterval, torch.relu)
def relu(input: ShrunkInterval) -> Interval:
    out = leaky_relu(input, 0.0)
    node = out.node
    # After a ReLU the lower bound is 0 for unstable units and for inactive ones, whose upper bound is 0 too.
    factor = torch.ones_like(node.radius).masked_fill(node.center <= node.radius, 1 - input.shrink / 2)
    clean = [] if node.nominal is None else [node.nominal]
    stack = torch.stack((*clean, node.center * factor))
    return emit(Opaque("the shrunk ReLU", module_path()), (out,), stack, node.radius * factor)
