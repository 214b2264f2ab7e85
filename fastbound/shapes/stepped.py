"""A convex curve that steps down onto the straight line that it follows from there: softplus with a low threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastbound.shapes.curved import Curved, bisected, tangent_at
from fastbound.shapes.function import Function, Line, Shape, nearest
from fastbound.shapes.polygon import Corner, Polygon


@dataclass(frozen=True)
class Stepped(Shape):
    """Convex and rising up to ``at``, where it is ``before``; from there a straight line of slope 1 that begins at
    ``after`` and lies below the curve. ``mirrored``: the negative of that."""

    at: float
    before: float
    after: float
    mirrored: bool = False

    def negated(self) -> Stepped:
        return replace(self, mirrored=not self.mirrored)

    def range(self, function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if self.mirrored:
            low, high = self.negated().range(function.negated(), lower, upper)
            return -high, -low
        low, high, crossed = function.value(lower), function.value(upper), self._crossed(lower, upper)
        return (
            torch.where(crossed, low.clamp(max=self.after), low),
            torch.where(crossed, high.clamp(min=self.before), high),
        )

    def upper_line(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        curve = Curved(convex=not self.mirrored).upper_line(function, lower, upper)
        if self.mirrored:
            crossing = self._above_the_step(function, lower, upper)
        else:  # above convex pieces only their ends count, as for straight ones
            crossing = self._polygon().upper_line(function, lower, upper)
        crossed = self._crossed(lower, upper)
        return Line(*(torch.where(crossed, one, other) for one, other in zip(crossing, curve)))

    def _above_the_step(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        """The mirrored function rises to its step: the best line follows the straight part after it, and before it
        passes above the corner, as a tangent of the curve or from the lower end."""
        at = torch.full_like(lower, self.at)
        start, step = torch.minimum(lower, at), torch.full_like(lower, -self.after)
        middle = torch.minimum((lower + upper) / 2, at)
        with torch.no_grad():
            left, _ = bisected(start, middle, lambda x: tangent_at(function, x, at) >= step)
            whole = tangent_at(function, middle, at) >= step
            begins = tangent_at(function, start, at) >= step
        touch = torch.where(whole & (middle < at), middle, left)
        slope = torch.where(
            begins, function.derivative(touch), (step - function.value(start)) / (at - start + (at <= start))
        )
        slope = torch.where((lower + upper) / 2 >= at, -1.0, slope)
        offset = torch.where(slope == -1.0, step - slope * at, function.value(touch) - slope * touch)
        with torch.no_grad():  # above the corner and the lower end, however the search has ended
            raised = torch.maximum(step - slope * at, function.value(start) - slope * start) - offset
        return Line(slope, offset + raised.clamp(min=0))

    def highest(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        smooth = Curved(convex=not self.mirrored).highest(function, slope, lower, nearest(self.at, lower, upper))
        return torch.maximum(smooth, self._polygon().highest(function, slope, lower, upper))

    def _polygon(self) -> Polygon:
        sign = -1.0 if self.mirrored else 1.0
        return Polygon((Corner(self.at, sign * self.before, sign * self.before, sign * self.after),), rises=None)

    def _crossed(self, lower: Tensor, upper: Tensor) -> Tensor:  # bool [*]
        return (lower <= self.at) & (upper > self.at)
