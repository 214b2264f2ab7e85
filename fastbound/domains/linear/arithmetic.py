"""Sums, differences, products and quotients with constants, and between intervals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.domains.records import Scale, Shift, Sum
from fastbound.domains.rules import rule
from fastbound.domains.streams import Streams, emit

Constant = Tensor | float | int


@rule(Streams, torch.add)
def add(input: Any, other: Any, *, alpha: float = 1) -> Streams:
    return _combine(input, other, 1.0, float(alpha))


@rule(Streams, torch.sub)
def sub(input: Any, other: Any, *, alpha: float = 1) -> Streams:
    return _combine(input, other, 1.0, -float(alpha))


@rule(Streams, torch.rsub)
def rsub(input: Any, other: Any, *, alpha: float = 1) -> Streams:
    return _combine(other, input, 1.0, -float(alpha))


@rule(Streams, torch.neg)
def neg(input: Streams) -> Streams:
    return _scaled(input, -1.0)


@rule(Streams, torch.mul)
def mul(input: Any, other: Any) -> Streams:
    if isinstance(input, Streams) and isinstance(other, Streams):
        raise NotImplementedError(
            f"mul{module_path()}: the product of two abstract values has no rule for {type(input).__name__}."
        )
    return _scaled(input, other) if isinstance(input, Streams) else _scaled(other, input)


@rule(Streams, torch.div)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Streams:
    if rounding_mode is not None:
        raise NotImplementedError(f"div{module_path()}: wanted no rounding_mode, got {rounding_mode!r}.")
    if isinstance(other, Streams):
        return input * torch.reciprocal(other)  # type: ignore[arg-type]
    if isinstance(other, Tensor):  # in float32, or of integers, 1 / 3 would not be a third in float64
        other = other.to(torch.promote_types(other.dtype, input.dtype))
    return _scaled(input, 1 / other)


def _combine(left: Any, right: Any, left_factor: float, right_factor: float) -> Streams:
    """``left_factor * left + right_factor * right``, of which at least one is abstract."""
    if isinstance(left, Streams) and isinstance(right, Streams):
        left, right = _scaled(left, left_factor), _scaled(right, right_factor)
        streams = _same_streams(left, right)
        dim = max(left.dim(), right.dim())
        stack = align(streams[0], dim) + align(streams[1], dim)
        radius = left.node.radius + right.node.radius
        return emit(Sum((1.0, 1.0)), (left, right), stack, radius)
    interval, factor, constant, other = (
        (left, left_factor, right, right_factor)
        if isinstance(left, Streams)
        else (right, right_factor, left, left_factor)
    )
    interval = _scaled(interval, factor)
    offset = constant if other == 1 else constant * other
    stack, radius = interval.node.streams
    stack = align(stack, _dim(offset)) + offset
    return emit(Shift(offset), (interval,), stack, radius.expand(stack.shape[1:]).to(stack.dtype))


def _scaled(input: Streams, factor: Constant) -> Streams:
    if isinstance(factor, (int, float)) and factor == 1:
        return input.handle(input.node)  # a new handle: writing into the product must not change the factor
    stack, radius = input.node.streams
    width = factor.abs() if isinstance(factor, Tensor) else abs(factor)
    return emit(Scale(factor), (input,), align(stack, _dim(factor)) * factor, radius * width)


def _same_streams(left: Streams, right: Streams) -> tuple[Tensor, Tensor]:  # [N, B, *], [N, B, *]
    """The streams that both have: without the nominal one unless both carry it."""
    streams = min(left.node.stack.shape[0], right.node.stack.shape[0])
    return left.node.stack[-streams:], right.node.stack[-streams:]


def _dim(value: Constant) -> int:
    return value.dim() if isinstance(value, Tensor) else 0


def align(stack: Tensor, dim: int) -> Tensor:
    """Insert dimensions after the stream dimension so that ``stack`` [N, *S] broadcasts against ``dim`` dimensions."""
    missing = dim - (stack.dim() - 1)
    return stack.reshape(stack.shape[:1] + (1,) * missing + stack.shape[1:]) if missing > 0 else stack
