"""Convolutions of any number of dimensions: sizes, and weights and maps in orders that libraries convolve rightly."""

from __future__ import annotations

from torch import Tensor

Sizes = tuple[int, ...]  # one number for each dimension of the maps


def as_kernel(weight: Tensor) -> Tensor:  # [O, C / groups, *K], of a transposed convolution [C, O / groups, *K]
    """``weight``, copied unless it is row-major or has every stride of channels_last; products read no other.

    torch also calls a weight channels_last whose sides of 1 have other strides. With such a one oneDNN's grouped
    convolutions of channels_last maps are wrong by as much as their own size, forward and backward (torch 2.13), and
    the gradient of an ungrouped one raises "grad_weight must be contiguous".
    """
    if weight.is_contiguous():
        return weight
    step = 1
    for dim in (1, *range(weight.dim() - 1, 1, -1), 0):
        if weight.stride(dim) != step:
            return weight.contiguous()
        step *= weight.shape[dim]
    return weight


def as_map(x: Tensor, spatial: int) -> Tensor:  # [*, C, *K], K of `spatial` dimensions
    """``x`` with the strides that its order gives to sides of 1, row-major if it has one channel; seldom a copy.

    torch allows any stride there, and takes some for another order: weight gradients of grouped convolutions are wrong
    then (torch 2.13). A map of one channel has both orders.
    """
    if 1 not in x.shape:
        return x
    channels = -spatial - 1
    rows = x if x.is_contiguous() else x.movedim(channels, -1)
    if not rows.is_contiguous():
        return x.contiguous()
    usual = rows.reshape(-1).view(rows.shape)
    return usual if x.is_contiguous() else usual.movedim(-1, channels)


def room(size: Sizes, kernel: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """How far the window of a convolution can move in the padded map, in pixels."""
    sides = zip(size, kernel, padding, dilation, strict=True)
    return tuple(n + 2 * p - d * (k - 1) - 1 for n, k, p, d in sides)


def output_size(size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """The size of a convolution's output map."""
    return tuple(r // s + 1 for r, s in zip(room(size, kernel, padding, dilation), stride, strict=True))
