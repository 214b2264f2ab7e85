"""Passes over the sparse rows of full CROWN on CPU, and the transposed convolution to maps of few channels.

None of them is differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import cpu_only as unsupported
from fastbound.native.product import linear
from fastbound.primitives import Pair

__all__ = ["fold_convolution", "unsupported", "windows_concretized", "windows_through_lines"]

# Numbers in the columns of one product of `fold_convolution`: few enough to be added up while still in a cache.
_COLUMNS = 2**19


def windows_through_lines(
    values: Tensor,  # [B, S, C, h, w]
    base: Tensor,  # [B, S, 2]
    lines: tuple[Tensor, Tensor | None, Tensor, Tensor],  # [B, C, H, W]: lower slope and offset, upper slope and offset
    stride: Pair,
    start: Pair,
) -> tuple[Tensor, Tensor]:  # [B, S, C, h, w], [B, S]
    values, base = _innermost(values), base.contiguous()
    lower_slope, lower_offset, upper_slope, upper_offset = lines
    lower = _innermost(lower_slope), None if lower_offset is None else _innermost(lower_offset)
    upper = _innermost(upper_slope), _innermost(upper_offset)
    out, bias = torch.empty_like(values), values.new_zeros(values.shape[:2])
    _C.crown_windows_lines(*_geometry(values, lower_slope, stride, start), values, base, *lower, *upper, out, bias)
    return out, bias


def windows_concretized(
    values: Tensor,  # [B, S, C, h, w]
    base: Tensor,  # [B, S, 2]
    center: Tensor,  # [B, C, H, W]
    radius: Tensor,  # [B, C, H, W]
    stride: Pair,
    start: Pair,
) -> Tensor:  # [B, S]
    values, base, center, radius = _innermost(values), base.contiguous(), _innermost(center), _innermost(radius)
    out = values.new_zeros(values.shape[:2])
    _C.crown_windows_concretize(*_geometry(values, center, stride, start), values, base, center, radius, out)
    return out


def fold_convolution(
    maps: Tensor,  # [R, O, h, w]
    weight: Tensor,  # [O, C, KH, KW]
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:  # [R, C, *size]
    """The transposed convolution as a matrix product and a pass that adds up its columns.

    oneDNN's own takes 5 times as long for one or two channels.
    """
    outputs, channels, kernel_height, kernel_width = weight.shape
    pixels = _innermost(maps).movedim(1, -1)
    matrix = weight.permute(0, 2, 3, 1).reshape(outputs, -1)
    out = maps.new_empty(maps.shape[0], *size, channels)
    height, width = maps.shape[2:]
    geometry = (height, width, kernel_height, kernel_width, channels, *size, *stride, *padding, *dilation)
    maps_at_once = max(1, _COLUMNS // max(height * width * matrix.shape[1], 1))
    for part, target in zip(pixels.split(maps_at_once), out.split(maps_at_once)):
        columns = linear(part.reshape(-1, outputs), matrix.T)
        _C.crown_windows_fold(part.shape[0], *geometry, columns, target)
    return out.movedim(-1, 1)


def _innermost(x: Tensor) -> Tensor:  # [*, C, h, w]
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)


def _geometry(
    values: Tensor,  # [B, S, C, h, w]
    like: Tensor,  # [B, C, H, W]
    stride: Pair,
    start: Pair,
) -> tuple[int, int, int, int, int, int, int, int, int, int, int]:
    batch, functions, channels, height, width = values.shape
    return batch, functions, height, width, channels, like.shape[2], like.shape[3], *stride, *start
