"""Functions that rise by one at every integer, or half-way between integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastbound.shapes.function import Function, Line, Shape, extremes


@dataclass(frozen=True)
class Staircase(Shape):
    """``floor(x + shift)``, up to the values at the steps themselves; falling: its negative."""

    shift: float
    rises: bool = True

    def negated(self) -> Staircase:
        return replace(self, rises=not self.rises)

    def range(self, function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return extremes(function, lower, upper, self.rises, None)

    def upper_line(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        """Along the upper corners of the steps (k - shift, k), and from the ends to the nearest of them."""
        if not self.rises:
            mirrored = function.negated()
            slope, offset = self._below(mirrored, lower, upper)
            return Line(-slope, -offset)
        at_lower, at_upper = function.value(lower), function.value(upper)
        middle = (lower + upper) / 2
        first, last = at_lower + 1 - self.shift, at_upper - self.shift  # the first and the last step
        level = at_lower == at_upper
        before, after = ~level & (middle < first), level | (middle > last)
        slope = _steep(before, first - lower)
        slope = torch.where(after, 0.0, slope)
        offset = torch.where(before, at_lower + 1 - slope * first, self.shift)
        return Line(slope, torch.where(after, at_upper, offset))

    def _below(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        """The lower line of the rising staircase: along the lower corners (k - shift, k - 1)."""
        at_lower, at_upper = function.value(lower), function.value(upper)
        middle = (lower + upper) / 2
        first, last = at_lower + 1 - self.shift, at_upper - self.shift
        level = at_lower == at_upper
        before, after = level | (middle < first), ~level & (middle > last)
        slope = _steep(after, upper - last)
        slope = torch.where(before, 0.0, slope)
        offset = torch.where(after, at_upper - 1 - slope * last, self.shift - 1)
        return Line(slope, torch.where(before, at_lower, offset))

    def highest(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """From the corners next to the ends: between them ``f(x) - slope x`` moves one way."""
        at_lower, at_upper = function.value(lower), function.value(upper)
        sign = 1.0 if self.rises else -1.0
        steps = sign * at_lower + 1, sign * at_upper
        corners = [(k - self.shift, k if self.rises else 1 - k) for k in steps]
        crossed = at_lower != at_upper
        found = [at_lower - slope * lower, at_upper - slope * upper]
        found += [torch.where(crossed, y - slope * x, found[0]) for x, y in corners]
        return torch.stack(found).amax(0)


def _steep(where: Tensor, run: Tensor) -> Tensor:  # [*], [*]
    """The slope of a whole step within ``run``, or 0 if that is none; 1 elsewhere."""
    slope = 1 / torch.where(where & (run > 0), run, 1.0)
    return torch.where(slope.isfinite(), slope, 0.0)
