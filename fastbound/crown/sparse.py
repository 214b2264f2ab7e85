"""Sparse rows: single elements of a node, and windows of a 2-D map.

Full CROWN bounds single elements, whose dense rows would be identity matrices over images. Here such a row is an
element (`Units`) until a convolution turns it into a window (`Patches`). Windows grow through earlier convolutions and
become dense rows when they are as large as the map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.backends import helper, needs_grad
from fastbound.crown.relaxations import Lines
from fastbound.domains.records import Convolution
from fastbound.ops.crown_conv2d import crown_conv2d

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Units:
    """Row s of sample b is ``value[b, s]`` times element ``index[b, s]`` of a node, counted in row-major order."""

    index: Tensor  # [B, S]
    value: Tensor  # [B, S]
    shape: torch.Size  # of a sample of the node

    def dense(self) -> Tensor:  # [B, S, *shape]
        rows = self.value.new_zeros(*self.index.shape, self.shape.numel())
        rows = rows.scatter(2, self.index.unsqueeze(2), self.value.unsqueeze(2))
        return rows.reshape(*self.index.shape, *self.shape)

    def pick(self, x: Tensor) -> Tensor:  # [B, *shape] -> [B, S]
        return x.reshape(x.shape[0], -1).gather(1, self.index)

    def per_channel(self, vector: Tensor) -> Tensor:  # [C] -> [B, S]
        return vector[self.index // self.shape[1:].numel()]

    def concretize(self, center: Tensor, radius: Tensor) -> Tensor:  # [B, S]
        return self.value * self.pick(center) - self.value.abs() * self.pick(radius)

    def through_lines(self, lines: Lines) -> tuple[Units, Tensor]:
        negative = self.value < 0
        lower_offset = 0.0 if lines.lower_offset is None else self.pick(lines.lower_offset)
        slope = torch.where(negative, self.pick(lines.upper_slope), self.pick(lines.lower_slope))
        offset = torch.where(negative, self.pick(lines.upper_offset), lower_offset)
        return replace(self, value=self.value * slope), self.value * offset

    def __add__(self, other: Rows) -> Rows:
        if isinstance(other, Units) and torch.equal(self.index, other.index):
            return replace(self, value=self.value + other.value)
        if isinstance(other, Patches):
            return other + self
        return self.dense() + (other if isinstance(other, Tensor) else other.dense())

    def __mul__(self, factor: float) -> Units:
        return replace(self, value=self.value * factor)

    __radd__ = __add__

    def convolution(self, record: Convolution, size: tuple[int, int]) -> Patches:
        """The windows of the convolution's input that these elements of its output read."""
        channel, pixel = self.index // self.shape[1:].numel(), self.index % self.shape[1:].numel()
        kernel = _whole_kernel(record)[channel].permute(0, 1, 3, 4, 2)  # [B, S, KH, KW, C]
        scale = self.value[..., None, None, None]
        kernel = kernel * scale if needs_grad(kernel, scale) else kernel.mul_(scale)  # indexing copied it
        values = kernel.permute(0, 1, 4, 2, 3)
        base = torch.stack((pixel // self.shape[2], pixel % self.shape[2]), 2)
        last = (self.shape[1] - 1, self.shape[2] - 1)
        return Patches(values, base, last, _pair(record.stride), _pair(-p for p in record.padding), size)


@dataclass(frozen=True, eq=False)
class Patches:
    """Row s of sample b is zero outside a window at ``base[b, s] * stride + start`` of a map of ``size``."""

    values: Tensor  # [B, S, C, h, w], channels innermost in memory; values outside the map are ignored
    base: Tensor  # [B, S, 2]
    last: tuple[int, int]  # largest base
    stride: Pair
    start: Pair
    size: tuple[int, int]

    @property
    def window(self) -> tuple[int, int]:
        return self.values.shape[3], self.values.shape[4]

    @property
    def inside(self) -> bool:
        """Whether no window can leave the map."""
        ends = (b * s + o + w for b, s, o, w in zip(self.last, self.stride, self.start, self.window))
        return min(self.start) >= 0 and all(end <= n for end, n in zip(ends, self.size))

    def masked(self) -> Patches:
        """The same rows, with zeros outside the map."""
        if self.inside:
            return self
        y, x = self._coordinates()
        mask = _within(y, self.size[0]).unsqueeze(3) & _within(x, self.size[1]).unsqueeze(2)
        return replace(self, values=torch.where(mask.unsqueeze(2), self.values, 0.0))

    def dense(self) -> Tensor:  # [B, S, C, H, W]
        (y, x), (height, width) = self._coordinates(), self.size
        mask = _within(y, height).unsqueeze(3) & _within(x, width).unsqueeze(2)
        values = torch.where(mask.unsqueeze(2), self.values, 0.0).movedim(2, -1).flatten(2, 3)  # [B, S, hw, C]
        place = y.clamp(0, height - 1).unsqueeze(3) * width + x.clamp(0, width - 1).unsqueeze(2)
        rows = values.new_zeros(*values.shape[:2], height * width, values.shape[3])
        rows = rows.scatter_add(2, place.flatten(2).unsqueeze(3).expand(values.shape), values)
        return rows.unflatten(2, (height, width)).movedim(-1, 2)

    def windows(self, x: Tensor) -> Tensor:
        """The windows of maps [B, C, H, W], zeros outside: [B, S, C, h, w]."""
        ends = [b * s + o + w for b, s, o, w in zip(self.last, self.stride, self.start, self.window)]
        top, left = (max(0, -o) for o in self.start)
        bottom, right = (max(0, end - n) for end, n in zip(ends, self.size))
        padded = F.pad(x, (left, right, top, bottom)).movedim(1, -1)
        width = padded.shape[2]
        rows, columns = self._coordinates()
        place = ((rows + top).unsqueeze(3) * width + (columns + left).unsqueeze(2)).flatten(2)  # [B, S, hw]
        sample = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)
        found = padded.flatten(1, 2)[sample, place]
        return found.unflatten(2, self.window).movedim(-1, 2)

    def concretize(self, center: Tensor, radius: Tensor) -> Tensor:  # [B, S]
        passes = _passes(self.values, center, radius)
        if passes is not None:
            return passes.windows_concretized(self.values, self.base, center, radius, self.stride, self.start)
        return (self.values * self.windows(center) - self.values.abs() * self.windows(radius)).flatten(2).sum(2)

    def through_lines(self, lines: Lines) -> tuple[Patches, Tensor]:
        passes = _passes(self.values, *lines)
        if passes is not None:
            values, bias = passes.windows_through_lines(self.values, self.base, lines, self.stride, self.start)
            return replace(self, values=values), bias
        negative = self.values < 0
        slope = torch.where(negative, self.windows(lines.upper_slope), self.windows(lines.lower_slope))
        lower_offset = 0.0 if lines.lower_offset is None else self.windows(lines.lower_offset)
        offset = torch.where(negative, self.windows(lines.upper_offset), lower_offset)
        return replace(self, values=self.values * slope), (self.values * offset).flatten(2).sum(2)

    def convolution(self, record: Convolution, size: tuple[int, int]) -> Rows:
        """Larger windows of the convolution's input, or dense rows if a window is as large as the map."""
        clean = self.masked()
        step, padding, dilation, groups = record.geometry()
        kernel = record.weight.shape[2:]
        window = _pair((n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(self.window, step, dilation, kernel))
        grown, _ = crown_conv2d(clean.values, record.weight, None, window, step, (0, 0), dilation, groups)
        stride = _pair(a * b for a, b in zip(self.stride, step))
        start = _pair(a * b - p for a, b, p in zip(self.start, step, padding))
        out = Patches(grown, self.base, self.last, stride, start, size)
        return out.dense() if window[0] * window[1] >= size[0] * size[1] else out

    def __add__(self, other: Rows) -> Rows:
        if isinstance(other, Units):
            other = _as_patches(other, self)
        if not isinstance(other, Patches) or other.stride != self.stride or other.base is not self.base:
            return self.dense() + (other if isinstance(other, Tensor) else other.dense())
        start = _pair(min(a, b) for a, b in zip(self.start, other.start))
        end = [
            max(a + m, b + n) - o for a, m, b, n, o in zip(self.start, self.window, other.start, other.window, start)
        ]
        return replace(self, values=_placed(self, start, end) + _placed(other, start, end), start=start)

    def __mul__(self, factor: float) -> Patches:
        return replace(self, values=self.values * factor)

    __radd__ = __add__

    def _coordinates(self) -> tuple[Tensor, Tensor]:  # [B, S, h], [B, S, w]
        y, x = (
            self.base[..., d, None] * self.stride[d]
            + (self.start[d] + torch.arange(self.window[d], device=self.base.device))
            for d in range(2)
        )
        return y, x


Rows = Tensor | Units | Patches


def _passes(values: Tensor, *others: Tensor | None) -> ModuleType | None:
    """Compiled passes over windows, which have no gradient; None if the formulas here must do."""
    if values.numel() == 0 or needs_grad(values, *others):
        return None
    return helper("crown_windows", values)


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second


def _within(position: Tensor, size: int) -> Tensor:
    return (position >= 0) & (position < size)


def _placed(patches: Patches, start: tuple[int, ...], end: list[int]) -> Tensor:
    """The values in a window of size ``end`` that begins at ``start``, with zeros around them."""
    before = [a - b for a, b in zip(patches.start, start)]
    after = [e - b - w for e, b, w in zip(end, before, patches.window)]
    return F.pad(patches.masked().values, (before[1], after[1], before[0], after[0]))


def _as_patches(units: Units, like: Patches) -> Rows:
    """Single elements as windows of one pixel with the bases of ``like``, if they are the same pixels."""
    channels, height, width = units.shape
    pixel = units.index % (height * width)
    if not torch.equal(like.base, torch.stack((pixel // width, pixel % width), 2)) or set(like.stride) != {1}:
        return units
    one_hot = F.one_hot(units.index // (height * width), channels) * units.value.unsqueeze(2)
    return Patches(one_hot[..., None, None], like.base, like.last, (1, 1), (0, 0), (height, width))


def _whole_kernel(record: Convolution) -> Tensor:
    """The kernel [O, C, h, w] of an equivalent convolution without groups and dilation."""
    weight = record.weight
    if record.groups > 1:
        outputs, inputs = weight.shape[:2]
        group = torch.arange(outputs, device=weight.device) // (outputs // record.groups)
        columns = group.unsqueeze(1) * inputs + torch.arange(inputs, device=weight.device)
        whole = weight.new_zeros(outputs, inputs * record.groups, *weight.shape[2:])
        weight = whole.scatter(1, columns[..., None, None].expand(weight.shape), weight)
    if set(record.dilation) != {1}:
        (down, across), (height, width) = record.dilation, weight.shape[2:]
        wide = weight.new_zeros(*weight.shape[:2], down * (height - 1) + 1, across * (width - 1) + 1)
        wide[:, :, ::down, ::across] = weight
        weight = wide
    return weight
