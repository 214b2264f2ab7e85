"""A function of one real number, by its shape: the one description that every kind of bound is made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

# A place on the real line: the same for all elements, or a tensor that broadcasts against them.
Point = float | Tensor


class Line(NamedTuple):
    """``slope x + offset``, each [*]."""

    slope: Tensor
    offset: Tensor


class Cover(NamedTuple):
    """The band ``slope x + offset -+ width``, each [*], width >= 0."""

    slope: Tensor
    offset: Tensor
    width: Tensor


class Definition(NamedTuple):
    """Where a function is defined, for functions that are not defined everywhere."""

    holds: Callable[[Tensor, Tensor], Tensor]  # [*], [*] -> bool [*]: whether it is defined on all of [lower, upper]
    wanted: str
    advice: str


class Shape(ABC):
    """How a function rises, falls and bends. From it follow its range and the lines around it on an interval.

    Ends ``lower <= upper`` are tensors [*] of one dtype.
    """

    @abstractmethod
    def range(self, function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest value, each [*]."""

    @abstractmethod
    def upper_line(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        """The line above the function that leaves the least area between them."""

    @abstractmethod
    def highest(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """An upper bound [*] of ``f(x) - slope x``, as tight as the shape allows."""

    @abstractmethod
    def negated(self) -> Shape:
        """The shape of the negative function."""

    def cover(self, function: Function, lower: Tensor, upper: Tensor) -> Cover:
        """Two parallel lines around the function: along its chord, or flat where that band is narrower."""
        return narrower(
            self._band(function, chord(function, lower, upper), lower, upper), self.flat_cover(function, lower, upper)
        )

    def flat_cover(self, function: Function, lower: Tensor, upper: Tensor) -> Cover:
        """Two constants around the function."""
        low, high = self.range(function, lower, upper)
        return Cover(torch.zeros_like(low), (low + high) / 2, (high - low) / 2)

    def _band(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Cover:
        above = self.highest(function, slope, lower, upper)
        opposite = function.negated()
        below = -opposite.shape.highest(opposite, -slope, lower, upper)
        return Cover(slope, (above + below) / 2, ((above - below) / 2).clamp(min=0))


@dataclass(frozen=True, eq=False)
class Function:
    """An element-wise function.

    Args:
        value: the function itself, on tensors of any shape.
        derivative: its derivative. At a kink where two pieces of a `Curved` shape meet, that of either side will do if
            the function bends there as one of the two pieces does; see `Curved`.
        shape: how it rises, falls and bends.
        lipschitz: the largest absolute value of the derivative, rounded up; infinity where there is none.
        defined: where, if not everywhere.
        parameters: tensors that the function depends on.
        parameter_shape: to which the input is broadcast by them.
    """

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    shape: Shape
    lipschitz: float | Tensor
    defined: Definition | None = None
    parameters: tuple[Tensor, ...] = ()
    parameter_shape: tuple[int, ...] = ()

    def negated(self) -> Function:
        """``-f``."""
        value, derivative = self.value, self.derivative
        return replace(self, value=lambda x: -value(x), derivative=lambda x: -derivative(x), shape=self.shape.negated())

    def range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:  # [*], [*]
        """The least and the largest value on [lower, upper]."""
        return self.shape.range(self, lower, upper)

    def upper_line(self, lower: Tensor, upper: Tensor) -> Line:
        """A line above the function on [lower, upper], each [*]: flat where a slope overflows."""
        slope, offset = self.shape.upper_line(self, lower, upper)
        finite = slope.isfinite() & offset.isfinite()
        return Line(torch.where(finite, slope, 0.0), torch.where(finite, offset, self.range(lower, upper)[1]))

    def lower_line(self, lower: Tensor, upper: Tensor) -> Line:
        """A line below the function on [lower, upper], each [*]."""
        slope, offset = self.negated().upper_line(lower, upper)
        return Line(-slope, -offset)

    def cover(self, lower: Tensor, upper: Tensor) -> Cover:
        """Two parallel lines around the function on [lower, upper], each [*]."""
        return self.shape.cover(self, lower, upper)

    def flat_cover(self, lower: Tensor, upper: Tensor) -> Cover:
        """Two constants around the function on [lower, upper], each [*]."""
        return self.shape.flat_cover(self, lower, upper)


def chord(function: Function, lower: Tensor, upper: Tensor) -> Tensor:
    """The slope [*] between the values at both ends; the derivative where the ends meet."""
    run = upper - lower
    apart = run > 0
    rise = function.value(upper) - function.value(lower)
    slope = torch.where(apart, rise / torch.where(apart, run, 1.0), function.derivative(upper))
    return torch.where(slope.isfinite(), slope, 0.0)


def narrower(one: Cover, other: Cover) -> Cover:
    """Each element's band of the smaller width."""
    first = one.width <= other.width
    return Cover(*(torch.where(first, a, b) for a, b in zip(one, other)))


def extremes(
    function: Function, lower: Tensor, upper: Tensor, rises: bool, turn: Point | None
) -> tuple[Tensor, Tensor]:
    """Range of a function that rises (or falls) up to ``turn``, if there is one, and falls (or rises) after it."""
    if turn is None:
        first, last = (lower, upper) if rises else (upper, lower)
        return function.value(first), function.value(last)
    ends = function.value(lower), function.value(upper)
    extreme = function.value(nearest(turn, lower, upper))
    return (torch.minimum(*ends), extreme) if rises else (extreme, torch.maximum(*ends))


def nearest(point: Point, lower: Tensor, upper: Tensor) -> Tensor:  # [*]
    """The element of [lower, upper] nearest to a point."""
    return torch.minimum(lower.clamp(min=point), upper)
