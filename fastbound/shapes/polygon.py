"""Functions of straight pieces, with kinks or jumps where they meet: every line of least area joins two corners."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.shapes.function import Function, Line, Point, Shape, extremes


class Corner(NamedTuple):
    """Where two straight pieces meet: the limits of the function from both sides, and its value."""

    at: Point
    left: Point
    value: Point
    right: Point

    def negated(self) -> Corner:
        return Corner(self.at, -self.left, -self.value, -self.right)


def kink(at: Point, value: Point) -> Corner:
    """A corner without a jump."""
    return Corner(at, value, value, value)


@dataclass(frozen=True)
class Polygon(Shape):
    """Straight pieces between ``corners``, which ascend. It rises first, or falls, and turns at ``turn`` if at all;
    with ``rises=None`` it may have its extremes at any corner."""

    corners: tuple[Corner, ...]
    rises: bool | None = True
    turn: Point | None = None

    def negated(self) -> Polygon:
        """Of the subclasses too: what they know beyond a polygon holds of the function alone."""
        rises = None if self.rises is None else not self.rises
        return Polygon(tuple(corner.negated() for corner in self.corners), rises, self.turn)

    def range(self, function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if self.rises is not None:
            return extremes(function, lower, upper, self.rises, self.turn)
        flat, opposite = torch.zeros_like(lower), function.negated()
        return -opposite.shape.highest(opposite, flat, lower, upper), self.highest(function, flat, lower, upper)

    def upper_line(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        """The highest chord at the middle, among those between the ends and the corners: the concave envelope there."""
        points = self._points(function, lower, upper)
        middle = ((lower + upper) / 2).detach()
        x, y = points[0]
        slope, anchor_x, anchor_y = torch.zeros_like(y), x, y
        height = torch.full_like(middle, -torch.inf)
        for (x0, y0), (x1, y1) in combinations(points, 2):
            found = torch.where(x1 > x0, (y1 - y0) / torch.where(x1 > x0, x1 - x0, 1.0), 0.0)
            # A jump within an interval of denormal width has no slope.
            between = (x0 <= middle) & (middle <= x1) & found.isfinite()
            reached = torch.where(between, torch.maximum(y0 + found * (middle - x0), y0.minimum(y1)), -torch.inf)
            better = (reached > height).detach()
            height = torch.where(better, reached.detach(), height)
            slope = torch.where(better, found, slope)
            anchor_x, anchor_y = torch.where(better, x0, anchor_x), torch.where(better, y0, anchor_y)
        offset = anchor_y - slope * anchor_x
        with torch.no_grad():
            raised = torch.stack([y - slope * x for x, y in points]).amax(0) - offset
        return Line(slope, offset + raised.clamp(min=0))

    def highest(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return torch.stack([y - slope * x for x, y in self._points(function, lower, upper)]).amax(0)

    def _points(self, function: Function, lower: Tensor, upper: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Both ends, and between them the corners, in order; a corner outside the interval is the end next to it."""
        at_lower, at_upper = function.value(lower), function.value(upper)
        inner = []
        for corner in self.corners:
            at, left, value, right = (torch.as_tensor(p, dtype=lower.dtype, device=lower.device) for p in corner)
            top = torch.where(at > lower, torch.maximum(left, value), value)
            top = torch.where(at < upper, torch.maximum(top, right), top)
            inside = (at >= lower) & (at <= upper)
            x = torch.where(inside, at, torch.where(at < lower, lower, upper))
            inner.append((x, torch.where(inside, top, torch.where(at < lower, at_lower, at_upper))))
        return [(lower, at_lower), *inner, (upper, at_upper)]


@dataclass(frozen=True)
class Hinge(Polygon):
    """x above 0, ``negative_slope * x`` below."""

    negative_slope: float = 0.0


def leaky_slope(shape: Shape) -> float | None:
    """The slope below 0 of a convex (leaky) ReLU; None for any other shape."""
    return shape.negative_slope if isinstance(shape, Hinge) and 0 <= shape.negative_slope <= 1 else None


@dataclass(frozen=True)
class Ramp(Polygon):
    """x between ``low`` and ``high``, constant outside; without a limit where one is infinite."""

    low: Point = -torch.inf
    high: Point = torch.inf
