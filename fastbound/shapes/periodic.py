"""Waves: sine and cosine between two crests are concave, convex and concave again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastbound.shapes.curved import Curved
from fastbound.shapes.function import Function, Line, Shape

PERIOD = 2 * math.pi
# Beyond this many units of rounding the places of crests are too coarse, and the wave is covered by -1 and 1.
FARTHEST = 2.0**-12


@dataclass(frozen=True)
class Wave(Shape):
    """A sine: 1 at ``crest``, -1 at ``trough``, and so at every period from there."""

    crest: float
    trough: float

    def negated(self) -> Wave:
        return replace(self, crest=self.trough, trough=self.crest)

    def range(self, function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        ends = function.value(lower), function.value(upper)
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        far = _far(lower, upper)
        return (
            torch.where(far | _reached(self.trough, lower, upper), -1.0, low),
            torch.where(far | _reached(self.crest, lower, upper), 1.0, high),
        )

    def upper_line(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        """A constant between two crests of the interval; else that of the period about the middle, as if the function
        stayed at 1 beyond a crest."""
        middle = (lower + upper) / 2
        left = _last(self.crest, middle)
        right = left + PERIOD
        behind, ahead = left >= lower, right <= upper
        start, end = torch.maximum(lower, left), torch.minimum(upper, right)
        between = torch.minimum(torch.maximum(middle, start), end)
        slope, offset = _period(left, convex=False).line_at(function, start, end, between)
        # Towards a crest the best line rises; if rounding lets it fall, it must pass above the crests that follow.
        wrong = torch.where(ahead, -slope, slope).clamp(min=0).detach() * (behind | ahead)
        offset = offset + wrong * (upper - lower)
        constant = (behind & ahead) | _far(lower, upper)
        return Line(torch.where(constant, 0.0, slope), torch.where(constant, 1.0, offset))

    def highest(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Exact where the interval lies between two crests or two troughs; else from the largest value."""
        _, high = self.range(function, lower, upper)
        highest = high - torch.minimum(slope * lower, slope * upper)
        for place, convex in ((self.crest, False), (self.trough, True)):
            left = _last(place, (lower + upper) / 2)
            between = _period(left, convex).highest(function, slope, lower, upper)
            inside = (left <= lower) & (left + PERIOD >= upper) & ~_far(lower, upper)
            highest = torch.where(inside, torch.minimum(between, highest), highest)
        return highest


def _last(place: float, x: Tensor) -> Tensor:  # [*]
    """The last of the points ``place``, up to whole periods, that is not beyond x."""
    periods = ((x.detach().double() - place) / PERIOD).floor()
    return (place + PERIOD * periods).to(x.dtype)


def _period(left: Tensor, convex: bool) -> Curved:
    """A wave from one crest or trough to the next: it bends a quarter of a period from both."""
    return Curved(convex=convex, bends=(left + PERIOD / 4, left + 3 * PERIOD / 4))


def _far(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.maximum(lower.abs(), upper.abs()) * torch.finfo(lower.dtype).eps > FARTHEST


@torch.no_grad()
def _reached(place: float, lower: Tensor, upper: Tensor) -> Tensor:  # bool [*]
    """Whether the interval contains ``place``, up to whole periods; in float64, since float32 has no place for many."""
    low, high = lower.double(), upper.double()
    first = place + PERIOD * ((low - place) / PERIOD).ceil()
    return first <= high + 8 * torch.finfo(torch.float64).eps * first.abs()


@dataclass(frozen=True)
class Branches(Shape):
    """A tangent: rising from pole to pole, concave and then convex about every multiple of pi."""

    rises: bool = True

    def negated(self) -> Branches:
        return Branches(not self.rises)

    def _branch(self, lower: Tensor) -> Curved:
        middle = (math.pi * (lower.detach().double() / math.pi).round()).to(lower.dtype)
        return Curved(convex=not self.rises, bends=(middle,), rises=self.rises)

    def range(self, function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self._branch(lower).range(function, lower, upper)

    def upper_line(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        return self._branch(lower).upper_line(function, lower, upper)

    def highest(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return self._branch(lower).highest(function, slope, lower, upper)


def one_branch(lower: Tensor, upper: Tensor) -> Tensor:  # bool [*]
    """Whether no pole of the tangent lies in the interval, or so close that rounding cannot tell."""
    margin = 8 * torch.finfo(lower.dtype).eps * torch.maximum(lower.abs(), upper.abs()).double()
    low, high = lower.double() - margin, upper.double() + margin
    return (low / math.pi + 0.5).floor() == (high / math.pi + 0.5).floor()
