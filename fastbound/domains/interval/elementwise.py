"""Element-wise functions by their ranges; a ReLU in one pass with the BatchNorm before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastbound.domains import functions
from fastbound.domains.checks import require_defined
from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.linear.layers import norm_relu, norm_relu_moments
from fastbound.domains.records import Elementwise, Norm
from fastbound.domains.rules import read_by, rule
from fastbound.domains.streams import emit
from fastbound.domains.tape import PendingNorm
from fastbound.shapes import Function


@read_by(Interval)
def elementwise(input: Interval, function: Function, name: str) -> Interval:
    lower, upper, nominal = input.lower, input.upper, input.nominal
    require_defined(function, name, lower, upper)
    streams = streams_of(*function.range(lower, upper), None if nominal is None else function.value(nominal))
    return emit(Elementwise(function, name), (input,), *streams)


@rule(Interval, torch.relu)
def relu(input: Interval) -> Interval:
    return leaky_relu(input, 0.0)


@rule(Interval, F.leaky_relu)
def leaky_relu(input: Interval, negative_slope: float = 0.01) -> Interval:
    name = "torch.nn.functional.leaky_relu"
    function = functions.leaky_relu(negative_slope) if negative_slope else functions.relu()
    if not 0 <= negative_slope <= 1:  # which the fused pass does not know
        return elementwise(input, function, name)
    node, norm = input.node, None
    if isinstance(node, PendingNorm) and node.can_fuse:
        node, norm = node.source, node.record_as(Norm)
    record = Elementwise(function, name)
    if not node.tape.keeps_relu_moments:
        return emit(record, (input,), *norm_relu(node, norm, negative_slope), dtype=input.dtype)
    stack, radius, moments = norm_relu_moments(node, norm, negative_slope)
    out = emit(record, (input,), stack, radius, dtype=input.dtype)
    out.node.relu_moments = moments
    return out
