"""Sums of values, and sums and products with constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.domains.lipschitz.graph import Addition, LipschitzNode
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import rule

Constant = Tensor | float | int


@rule(Lipschitz, torch.add)
def add(input: Any, other: Any, *, alpha: float = 1) -> Lipschitz:
    return _combined("add", input, other, 1.0, float(alpha))


@rule(Lipschitz, torch.sub)
def sub(input: Any, other: Any, *, alpha: float = 1) -> Lipschitz:
    return _combined("sub", input, other, 1.0, -float(alpha))


@rule(Lipschitz, torch.rsub)
def rsub(input: Any, other: Any, *, alpha: float = 1) -> Lipschitz:
    return _combined("rsub", other, input, 1.0, -float(alpha))


@rule(Lipschitz, torch.neg)
def neg(input: Lipschitz) -> Lipschitz:
    return input.mapped_to(-input.nominal)


@rule(Lipschitz, torch.mul)
def mul(input: Any, other: Any) -> Lipschitz:
    if isinstance(input, Lipschitz) and isinstance(other, Lipschitz):
        raise NotImplementedError(
            f"mul{module_path()}: the product of two values has no Lipschitz constant; use sums and fixed factors."
        )
    return _scaled("mul", input, other) if isinstance(input, Lipschitz) else _scaled("mul", other, input)


@rule(Lipschitz, torch.div)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Lipschitz:
    if rounding_mode is not None or not isinstance(input, Lipschitz) or isinstance(other, Lipschitz):
        raise NotImplementedError(f"div{module_path()}: wanted a value divided by a constant, without rounding_mode.")
    nominal = _same_shape("div", input, input.nominal / other)
    # 1 / the smallest divisor, rounded as the elements' own divisions are.
    return input.mapped_to(nominal, 1 / _smallest(other))


def _combined(name: str, left: Any, right: Any, left_factor: float, right_factor: float) -> Lipschitz:
    """``left_factor * left + right_factor * right``, of which at least one is abstract."""
    if isinstance(left, Lipschitz) and isinstance(right, Lipschitz):
        left, right = _scaled(name, left, left_factor), _scaled(name, right, right_factor)
        nominal = _same_shape(name, right, _same_shape(name, left, left.nominal + right.nominal))
        return left.handle(LipschitzNode(nominal, Addition(), (left.node, right.node), left.node.flow))
    value, factor, constant, other = (
        (left, left_factor, right, right_factor)
        if isinstance(left, Lipschitz)
        else (right, right_factor, left, left_factor)
    )
    value = _scaled(name, value, factor)
    return value.mapped_to(_same_shape(name, value, value.nominal + (constant if other == 1 else constant * other)))


def _scaled(name: str, input: Lipschitz, factor: Constant) -> Lipschitz:
    if isinstance(factor, (int, float)) and factor == 1:
        return input.handle(input.node)  # a new handle: writing into the product must not change the factor
    return input.mapped_to(_same_shape(name, input, input.nominal * factor), _largest(factor))


def _largest(factor: Constant) -> float | Tensor:
    return factor.abs().amax() if isinstance(factor, Tensor) else abs(factor)


def _smallest(divisor: Constant) -> float | Tensor:
    return divisor.abs().amin() if isinstance(divisor, Tensor) else abs(divisor)


def _same_shape(name: str, input: Lipschitz, nominal: Tensor) -> Tensor:
    """``nominal``; raises NotImplementedError if a constant of a larger shape has copied elements of the value."""
    if nominal.shape != input.shape:
        raise NotImplementedError(
            f"{name}{module_path()}: {tuple(input.shape)} becomes {tuple(nominal.shape)} by broadcasting, which copies "
            "elements and so changes the norm; give both sides one shape."
        )
    return nominal
