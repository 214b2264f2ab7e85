"""Element-wise functions by their ranges; a ReLU in one pass with the BatchNorm before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fastbound.domains import functions
from fastbound.domains.checks import require_defined
from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.linear.layers import norm_relu, norm_relu_moments
from fastbound.domains.records import Elementwise, Norm
from fastbound.domains.rules import Entry, read_by, rule
from fastbound.domains.streams import emit
from fastbound.domains.tape import PendingNorm


@read_by(Interval)
def elementwise(make_function: Entry, name: str) -> Callable[..., Interval]:
    def read(input: Interval, *args: Any, **kwargs: Any) -> Interval:
        function, lower, upper = make_function(*args, **kwargs), input.lower, input.upper
        require_defined(function, name, lower, upper)
        nominal = input.nominal
        streams = streams_of(*function.range(lower, upper), None if nominal is None else function.value(nominal))
        return emit(Elementwise(function, name), (input,), *streams)

    return read


_any_leaky_relu = elementwise(functions.leaky_relu, "torch.nn.functional.leaky_relu")


@rule(Interval, torch.relu)
def relu(input: Interval) -> Interval:
    return leaky_relu(input, 0.0)


@rule(Interval, F.leaky_relu)
def leaky_relu(input: Interval, negative_slope: float = 0.01) -> Interval:
    if not 0 <= negative_slope <= 1:  # the fused pass only knows these
        return _any_leaky_relu(input, negative_slope)
    node, norm = input.node, None
    if isinstance(node, PendingNorm) and node.can_fuse:
        node, norm = node.source, node.record_as(Norm)
    function = functions.leaky_relu(negative_slope) if negative_slope else functions.relu()
    record = Elementwise(function, "torch.nn.functional.leaky_relu")
    if not node.tape.keeps_relu_moments:
        return emit(record, (input,), *norm_relu(node, norm, negative_slope), dtype=input.dtype)
    stack, radius, moments = norm_relu_moments(node, norm, negative_slope)
    out = emit(record, (input,), stack, radius, dtype=input.dtype)
    out.node.relu_moments = moments
    return out
