"""`LoosenedInterval`: intervals that are widened before every ReLU, continuously or with jumps.

The controlled experiment of the relaxations study: the same looseness as a continuous and as a discontinuous function
of the weights. Source: Jovanovic et al., 2022, arXiv 2102.06700.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.location import module_path
from fastbound.domains.records import Opaque
from fastbound.domains.rules import rule
from fastbound.domains.streams import emit
from fastbound.domains.tape import Node


class LoosenedInterval(Interval):
    """An `Interval` whose ReLUs read the wider [l - w, u + w], or with F = ``jumps`` jumps in every unit
    [l - w (ceil(F l) - F l), u + w (F u - floor(F u))].

    Args:
        box: the box to start from.
        looseness: w >= 0; 0 is the interval domain itself.
        jumps: F >= 0; 0 for the continuous variant.

    Every torch function but ReLU follows the rules of `Interval`; backward bounds raise an error at a loosened ReLU.

    Raises:
        ValueError: a looseness or a number of jumps below 0.

    Soundness: rounded to nearest; it contains the `Interval` of the same box.
    """

    settings = ("looseness", "jumps")

    def __init__(self, box: Interval | Node, looseness: float, jumps: float = 0.0) -> None:
        if not (looseness >= 0 and jumps >= 0):
            raise ValueError(f"looseness and jumps: wanted numbers of 0 or more, got {looseness} and {jumps}.")
        super().__init__(box.node if isinstance(box, Interval) else box)
        self.looseness, self.jumps = looseness, jumps

    def handle(self, node: Node) -> LoosenedInterval:
        return LoosenedInterval(node, self.looseness, self.jumps)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        rebuild, (_, *streams) = super().__reduce__()
        return _rebuild, (self.looseness, self.jumps, rebuild, *streams)


def _rebuild(looseness: float, jumps: float, rebuild: Callable[..., Interval], *streams: Tensor) -> LoosenedInterval:
    return LoosenedInterval(rebuild(Interval, *streams), looseness, jumps)


@rule(LoosenedInterval, torch.relu)
def relu(input: LoosenedInterval) -> Interval:
    lower, upper, nominal = input.lower, input.upper, input.nominal
    below = above = torch.ones_like(lower)
    if input.jumps > 0:
        steps_below, steps_above = input.jumps * lower, input.jumps * upper
        below, above = steps_below.ceil() - steps_below, steps_above - steps_above.floor()
    wider = (lower - input.looseness * below).relu(), (upper + input.looseness * above).relu()
    streams = streams_of(*wider, None if nominal is None else nominal.relu())
    return emit(Opaque("the loosened ReLU", module_path()), (input,), *streams)
