"""Element-wise functions: ReLU and its kin, smooth functions by their exact range on the interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.linear.layers import norm_relu, norm_relu_moments
from fastbound.domains.location import module_path
from fastbound.domains.records import Clamp, LeakyReLU, Norm, Opaque, Record, Smooth
from fastbound.domains.rules import function_name, rule
from fastbound.domains.streams import emit
from fastbound.domains.tape import PendingNorm


@rule(Interval, torch.relu)
def relu(input: Interval) -> Interval:
    return leaky_relu(input, 0.0)


@rule(Interval, F.leaky_relu)
def leaky_relu(input: Interval, negative_slope: float = 0.01) -> Interval:
    if negative_slope < 0:
        return _valley(input, lambda x: F.leaky_relu(x, negative_slope), 0.0, F.leaky_relu)
    if negative_slope > 1:  # concave, which the fused pass does not know
        record = LeakyReLU(float(negative_slope))
        return _monotone(input, lambda x: F.leaky_relu(x, negative_slope), record)
    node, norm = input.node, None
    if isinstance(node, PendingNorm) and node.fuses:
        node, norm = node.source, node.record_as(Norm)
    record = LeakyReLU(float(negative_slope))
    if not node.tape.takes_moments:
        return emit(record, (input,), *norm_relu(node, norm, negative_slope), dtype=input.dtype)
    stack, radius, moments = norm_relu_moments(node, norm, negative_slope)
    out = emit(record, (input,), stack, radius, dtype=input.dtype)
    out.node.moments = moments
    return out


@rule(Interval, torch.prelu)
def prelu(input: Interval, weight: Tensor) -> Interval:
    """Linear on both sides of 0, so its extremes on an interval are at the ends and, for a negative slope, at 0."""

    def function(x: Tensor) -> Tensor:
        return torch.prelu(x, weight)

    low, high = function(input.lower), function(input.upper)
    lower = torch.minimum(torch.minimum(low, high), function(_nearest(input, 0.0)))
    return _bounds(input, lower, torch.maximum(low, high), function, _opaque(torch.prelu))


@rule(Interval, torch.clamp)
def clamp(input: Interval, min: Any = None, max: Any = None) -> Interval:
    if isinstance(input, Interval) and not isinstance(min, Interval) and not isinstance(max, Interval):
        numbers = not isinstance(min, Tensor) and not isinstance(max, Tensor)
        record: Record = Clamp(min, max) if numbers else _opaque(torch.clamp)
        return _monotone(input, lambda x: torch.clamp(x, min, max), record)
    raise NotImplementedError(f"clamp{module_path()}: wanted an Interval between constant limits.")


@rule(Interval, torch.clamp_min)
def clamp_min(input: Interval, min: Any) -> Interval:
    return clamp(input, min=min)


@rule(Interval, torch.clamp_max)
def clamp_max(input: Interval, max: Any) -> Interval:
    return clamp(input, max=max)


@rule(Interval, F.hardtanh)
def hardtanh(input: Interval, min_val: float = -1.0, max_val: float = 1.0) -> Interval:
    return clamp(input, min_val, max_val)


@rule(Interval, F.relu6)
def relu6(input: Interval) -> Interval:
    return clamp(input, 0.0, 6.0)


@rule(Interval, torch.sigmoid)
def sigmoid(input: Interval) -> Interval:
    return _monotone(input, torch.sigmoid, Smooth("sigmoid"))


@rule(Interval, torch.tanh)
def tanh(input: Interval) -> Interval:
    return _monotone(input, torch.tanh, Smooth("tanh"))


@rule(Interval, torch.exp)
def exp(input: Interval) -> Interval:
    return _monotone(input, torch.exp, _opaque(torch.exp))


@rule(Interval, F.elu)
def elu(input: Interval, alpha: float = 1.0) -> Interval:
    if alpha < 0:
        raise NotImplementedError(f"elu{module_path()}: wanted alpha >= 0, got {alpha}.")
    return _monotone(input, lambda x: F.elu(x, alpha), _opaque(F.elu))


@rule(Interval, F.celu)
def celu(input: Interval, alpha: float = 1.0) -> Interval:
    return _monotone(input, lambda x: F.celu(x, alpha), _opaque(F.celu))


@rule(Interval, F.selu)
def selu(input: Interval) -> Interval:
    return _monotone(input, F.selu, _opaque(F.selu))


@rule(Interval, F.softplus)
def softplus(input: Interval, beta: float = 1.0, threshold: float = 20.0) -> Interval:
    if beta <= 0:
        raise NotImplementedError(f"softplus{module_path()}: wanted beta > 0, got {beta}.")

    def function(x: Tensor) -> Tensor:
        return F.softplus(x, beta, threshold)

    # Beyond the knee torch returns x itself, so the function steps down there, from ``peak`` to ``knee``.
    knee, peak = threshold / beta, (max(threshold, 0.0) + math.log1p(math.exp(-abs(threshold)))) / beta
    steps = (input.lower * beta <= threshold) & (input.upper * beta > threshold)
    low, high = function(input.lower), function(input.upper)
    lower = torch.where(steps, low.clamp(max=knee), low)
    return _bounds(input, lower, torch.where(steps, high.clamp(min=peak), high), function, _opaque(F.softplus))


@rule(Interval, F.hardsigmoid)
def hardsigmoid(input: Interval) -> Interval:
    return _monotone(input, F.hardsigmoid, _opaque(F.hardsigmoid))


# The minima of these valleys, to more digits than float64 distinguishes in the value there.
_GELU_MINIMUM = -0.7517915246935645
_GELU_TANH_MINIMUM = -0.7524614220710162
_SILU_MINIMUM = -1.2784645427610738
_MISH_MINIMUM = -1.1924318979370793


@rule(Interval, F.gelu)
def gelu(input: Interval, approximate: str = "none") -> Interval:
    minimum = _GELU_MINIMUM if approximate == "none" else _GELU_TANH_MINIMUM
    return _valley(input, lambda x: F.gelu(x, approximate=approximate), minimum, F.gelu)


@rule(Interval, F.silu)
def silu(input: Interval) -> Interval:
    return _valley(input, F.silu, _SILU_MINIMUM, F.silu)


@rule(Interval, F.mish)
def mish(input: Interval) -> Interval:
    return _valley(input, F.mish, _MISH_MINIMUM, F.mish)


@rule(Interval, F.hardswish)
def hardswish(input: Interval) -> Interval:
    return _valley(input, F.hardswish, -1.5, F.hardswish)


@rule(Interval, torch.abs)
def absolute(input: Interval) -> Interval:
    return _valley(input, torch.abs, 0.0, torch.abs)


@rule(Interval, torch.square)
def square(input: Interval) -> Interval:
    return _valley(input, torch.square, 0.0, torch.square)


def _opaque(function: Callable[..., Any]) -> Opaque:
    return Opaque(function_name(function), module_path())


def _monotone(input: Interval, function: Callable[[Tensor], Tensor], record: Record) -> Interval:
    """A non-decreasing function: its values at both ends."""
    return _bounds(input, function(input.lower), function(input.upper), function, record)


def _valley(
    input: Interval, function: Callable[[Tensor], Tensor], minimum: float, named: Callable[..., Any]
) -> Interval:
    """A function that falls up to ``minimum`` and rises after it: lowest at the point of [l, u] nearest to it."""
    upper = torch.maximum(function(input.lower), function(input.upper))
    return _bounds(input, function(_nearest(input, minimum)), upper, function, _opaque(named))


def _nearest(input: Interval, point: float) -> Tensor:
    """The element of [l, u] nearest to ``point``."""
    return torch.minimum(input.lower.clamp(min=point), input.upper)


def _bounds(
    input: Interval, lower: Tensor, upper: Tensor, function: Callable[[Tensor], Tensor], record: Record
) -> Interval:
    nominal = input.nominal
    streams = streams_of(lower, upper, None if nominal is None else function(nominal))
    return emit(record, (input,), *streams)
