"""Functions of convex and concave pieces: chords, and the tangent of least area among those that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.shapes.function import Cover, Function, Line, Point, Shape, chord, extremes, nearest

BISECTIONS = 30
NEITHER, LOWER, UPPER = 0, 1, 2  # the end of the interval through which a tangent passes
ROUNDINGS = 4  # by which two heights that are equal may differ


class Touch(NamedTuple):
    """A point of a concave piece, and what the tangent there needs, each [*]."""

    at: Tensor
    value: Tensor
    slope: Tensor

    def height(self, slope: Tensor, middle: Tensor) -> Tensor:  # [*]
        """The height at ``middle`` of the line of a slope through this point."""
        return self.value - slope * (self.at - middle)


@dataclass(frozen=True)
class Curved(Shape):
    """Convex and concave pieces in turn, which meet at ``bends``; the first one is convex, or not.

    The function rises first, or falls, and turns at most once. A tangent at a point of a piece must bound the whole
    piece, its ends included. So where two pieces meet at a kink, the derivative there is the one from the piece that
    does not bend that way: from within for both ends of the middle piece of hardswish, which is ``kinked``.
    """

    convex: bool
    bends: tuple[Point, ...] = ()
    rises: bool = True
    turn: Point | None = None
    kinked: bool = False

    def negated(self) -> Curved:
        return replace(self, convex=not self.convex, rises=not self.rises)

    def range(self, function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return extremes(function, lower, upper, self.rises, self.turn)

    def upper_line(self, function: Function, lower: Tensor, upper: Tensor) -> Line:
        return self.line_at(function, lower, upper, (lower + upper) / 2)

    def line_at(self, function: Function, lower: Tensor, upper: Tensor, middle: Tensor) -> Line:  # each [*]
        """The lowest line above the function at ``middle``, which lies in [lower, upper].

        It is a chord or a tangent. Which one, and the point of tangency, is searched for without gradients; its offset
        is then raised as far as it must be to hold on every piece up to roundings, wherever the search has ended.
        """
        places = self._places(lower, upper)
        with torch.no_grad():
            touches = [_touch(function, x) for x in places]
            found = self._search(function, touches, middle)
        touch = torch.where(found.tangent & (found.touch == middle), middle, found.touch)
        slope, anchor = function.derivative(touch), touch
        for index, (start, end) in enumerate(self._chords()):
            taken = ~found.tangent & (found.chord == index)
            slope = torch.where(taken, _along(function, places[start], places[end], touches), slope)
            anchor = torch.where(taken, places[start], anchor)
        if torch.is_grad_enabled() and (lower.requires_grad or upper.requires_grad):
            slope = slope + _turned(function, found, lower, LOWER) + _turned(function, found, upper, UPPER)
        return Line(slope, function.value(anchor) - slope * anchor + found.raised)

    def _places(self, lower: Tensor, upper: Tensor) -> list[Tensor]:
        """Where the pieces within the interval begin and end, in order: [*] each, from its lower to its upper end."""
        return [lower, *(nearest(bend, lower, upper) for bend in self.bends), upper]

    def _search(self, function: Function, ends: list[Touch], middle: Tensor) -> _Found:
        """The best line at ``middle``, from the ends of the pieces."""
        lower, upper = ends[0].at, ends[-1].at
        pieces = self._pieces(function, ends, middle)
        number = torch.zeros_like(lower, dtype=torch.int64)
        found = _Found(lower, number, torch.zeros_like(lower, dtype=torch.bool), number, torch.zeros_like(lower))
        height = torch.full_like(lower, torch.inf)
        for touch, through in (touch for piece in pieces for touch in piece.touches):
            reached, own = self._height(touch.slope, ends, pieces, middle), touch.height(touch.slope, middle)
            better = reached < height
            height = torch.where(better, reached, height)
            raised = _shortfall(reached, own, touch.slope, upper - lower)
            found = found.replaced(better, touch.at, None, through, raised)
        for index, (start, end) in enumerate(self._chords()):
            slope = _along(function, ends[start].at, ends[end].at, ends)
            reached = self._height(slope, ends, pieces, middle)
            own, other = (ends[number].height(slope, middle) for number in (start, end))
            # A chord that must be raised touches nowhere, and a tangent is as good.
            holds = (_shortfall(reached, torch.maximum(own, other), slope, upper - lower) == 0) | (not pieces)
            better = (reached < height) & holds
            height = torch.where(better, reached, height)
            raised = _shortfall(reached, own, slope, upper - lower)
            found = found.replaced(better, ends[start].at, index, NEITHER, raised)
        return found

    def _chords(self) -> list[tuple[int, int]]:
        """Pairs of `_places` that a best line may join: both ends, and each end with a kink between them."""
        last = len(self.bends) + 1
        kinks = range(1, last) if self.kinked else ()
        return [(0, last), *((0, number) for number in kinks), *((number, last) for number in kinks)]

    def _height(self, slope: Tensor, ends: list[Touch], pieces: list[_Piece], middle: Tensor) -> Tensor:  # [*]
        """The height at ``middle`` of the lowest line of a slope that is proven to lie above the function."""
        found = [end.height(slope, middle) for end in ends]
        found += [piece.height(slope, middle) for piece in pieces]
        return torch.stack(torch.broadcast_tensors(*found)).amax(0).nan_to_num(nan=torch.inf)

    def _pieces(self, function: Function, ends: list[Touch], middle: Tensor) -> list[_Piece]:
        """The concave pieces with the points at which a best line may touch them: next to the middle, or on a tangent
        through the function at an end of the interval that lies in a piece before or after."""
        found = []
        for index in self._concave():
            start, end = ends[index], ends[index + 1]
            points = [(torch.minimum(torch.maximum(middle, start.at), end.at), NEITHER)]
            if index > 0:
                points.append((_tangent_from(function, ends[0], start.at, end.at, rightmost=False), LOWER))
            if index < len(self.bends):
                points.append((_tangent_from(function, ends[-1], start.at, end.at, rightmost=True), UPPER))
            found.append(_Piece(start, end, [(_touch(function, x), through) for x, through in points]))
        return found

    def _concave(self) -> Sequence[int]:
        """The numbers of the concave pieces: piece i lies between the places i and i + 1."""
        return range(int(self.convex), len(self.bends) + 1, 2)

    def highest(self, function: Function, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """From both ends and from the points where the function rises like the slope; those are constants to autograd,
        as moving them changes nothing."""
        ends = self._places(lower, upper)
        places = [ends[0], ends[-1], *ends[1:-1]]
        raised = [torch.zeros_like(lower) for _ in places]
        for index in self._concave():
            # The function rises faster than the slope up to the left point, and slower from the right one.
            left, right = bisected(ends[index], ends[index + 1], lambda x: function.derivative(x) > slope)
            with torch.no_grad():
                between = ((function.derivative(left) - slope) * (right - left)).clamp(min=0).nan_to_num(nan=0.0)
            places += [left, right]
            raised += [between, torch.zeros_like(between)]
        best, most = lower, raised[0]
        with torch.no_grad():
            heights = [function.value(x) - slope * x + extra for x, extra in zip(places, raised)]
        height = heights[0]
        for x, extra, reached in zip(places[1:], raised[1:], heights[1:]):
            better = _shortfall(reached, height, slope, upper - lower) > 0  # an end comes first, it has a gradient
            height, best = torch.where(better, reached, height), torch.where(better, x, best)
            most = torch.where(better, extra, most)
        return function.value(best) - slope * best + most

    def cover(self, function: Function, lower: Tensor, upper: Tensor) -> Cover:
        """An S-shaped function minus the smaller of its slopes at the ends still rises, so its ends bound it.

        Source: Singh et al., 2018, Fast and effective robustness certification, section 4.
        """
        if not (self.convex and len(self.bends) == 1 and self.rises and self.turn is None) or self.kinked:
            return super().cover(function, lower, upper)
        low, high = function.value(lower), function.value(upper)
        slope = torch.minimum(function.derivative(lower), function.derivative(upper))
        offset, width = (low + high - slope * (lower + upper)) / 2, (high - low - slope * (upper - lower)) / 2
        return Cover(slope, offset, width.clamp(min=0))


class _Found(NamedTuple):
    """The best line so far, each [*]: the point that it passes through; whether it is a tangent there, or which chord;
    through which end of the interval a tangent passes; and by how much it must be raised above its point."""

    touch: Tensor
    chord: Tensor
    tangent: Tensor
    through: Tensor
    raised: Tensor

    def replaced(self, better: Tensor, touch: Tensor, chord_index: int | None, through: int, raised: Tensor) -> _Found:
        """With a line through ``touch`` where it is better: a tangent, or the chord of a number."""
        return _Found(
            torch.where(better, touch, self.touch),
            torch.where(better, 0 if chord_index is None else chord_index, self.chord),
            torch.where(better, chord_index is None, self.tangent),
            torch.where(better, through, self.through),
            torch.where(better, raised, self.raised),
        )


class _Piece(NamedTuple):
    """A concave piece within an interval: its ends, and points at which a best line may touch it."""

    start: Touch
    end: Touch
    touches: list[tuple[Touch, int]]

    def height(self, slope: Tensor, middle: Tensor) -> Tensor:  # [*]
        """An upper bound of ``f(x) - slope (x - middle)`` on the piece: every tangent gives one, the least is taken."""
        found = None
        for touch in (*(touch for touch, _ in self.touches), self.start, self.end):
            excess = touch.slope - slope
            raised = torch.maximum(excess * (self.start.at - touch.at), excess * (self.end.at - touch.at))
            bound = (touch.height(slope, middle) + raised).nan_to_num(nan=torch.inf)
            found = bound if found is None else torch.minimum(found, bound)
        assert found is not None
        return found


def _along(function: Function, start: Tensor, end: Tensor, ends: list[Touch]) -> Tensor:
    """The slope of a chord, within the slopes at all ends of pieces, which rounding may leave on short intervals."""
    least, most = torch.stack(torch.broadcast_tensors(*(touch.slope for touch in ends))).aminmax(dim=0)
    slope = chord(function, start, end)
    slope = torch.where((slope < least) & least.isfinite(), least, slope)
    return torch.where((slope > most) & most.isfinite(), most, slope)


def _turned(function: Function, found: _Found, end: Tensor, through: int) -> Tensor:
    """Zero, with the gradient of the slope of a tangent through an end of the interval: that of the secant to the point
    of tangency, where moving the point itself changes nothing."""
    apart = found.tangent & (found.through == through) & (found.touch != end)
    secant = (function.value(found.touch) - function.value(end)) / torch.where(apart, found.touch - end, 1.0)
    return torch.where(apart, secant - secant.detach(), 0.0)


def _shortfall(reached: Tensor, own: Tensor, slope: Tensor, width: Tensor) -> Tensor:  # each [*]
    """By how much a line of height ``own`` must be raised to ``reached``: not at all if roundings explain it, because
    they would all go the same way, and a network adds them up."""
    missing = reached - own
    rounding = ROUNDINGS * torch.finfo(slope.dtype).eps * (reached.abs() + slope.abs() * width)
    return torch.where(missing > rounding, missing, 0.0)


def _touch(function: Function, at: Tensor) -> Touch:
    return Touch(at, function.value(at), function.derivative(at))


def tangent_at(function: Function, touch: Tensor, x: Tensor) -> Tensor:  # [*], [*] -> [*]
    """The height at x of the tangent at ``touch``."""
    return function.value(touch) + function.derivative(touch) * (x - touch)


def _tangent_from(function: Function, end: Touch, start: Tensor, stop: Tensor, rightmost: bool) -> Tensor:
    """The point of a concave piece [start, stop] whose tangent passes through the function at ``end`` of the interval,
    or just above: the rightmost point for an upper end, the leftmost for a lower one."""

    def passes_above(x: Tensor) -> Tensor:
        return tangent_at(function, x, end.at) >= end.value

    if rightmost:
        return bisected(start, stop, passes_above)[0]
    return -bisected(-stop, -start, lambda x: passes_above(-x))[0]


@torch.no_grad()
def bisected(start: Tensor, end: Tensor, holds: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:  # [*], [*]
    """Two elements of [start, end] close together, between which a condition ceases to hold: it holds at the first, or
    that is ``start``; it does not at the second, or that is ``end``."""
    left, right = torch.broadcast_tensors(start, end)
    for _ in range(BISECTIONS):
        middle = (left + right) / 2
        kept = holds(middle)
        left, right = torch.where(kept, middle, left), torch.where(kept, right, middle)
    return left, right
