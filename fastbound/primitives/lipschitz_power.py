"""`lipschitz_power`: a layer as a linear operator W on samples, its adjoint, and unit vectors.

A convolution acts on zero-padded maps of a fixed size; its weight says how many dimensions they have. The inputs of a
linear layer have no such dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Sizes = tuple[int, ...]  # one number for each dimension of the maps

CONVOLUTIONS: dict[int, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    1: (F.conv1d, F.conv_transpose1d),
    2: (F.conv2d, F.conv_transpose2d),
    3: (F.conv3d, F.conv_transpose3d),
}


def applied(
    x: Tensor,  # [N, I] or [N, C, *size]
    weight: Tensor,  # [O, I] or [O, C / groups, *K]
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:  # [N, O] or [N, O, *]
    """``W x``."""
    if weight.dim() == 2:
        return x @ weight.T
    function, _ = CONVOLUTIONS[weight.dim() - 2]
    return function(x, weight, None, stride, padding, dilation, groups)


def adjoint(
    y: Tensor,  # [N, O] or [N, O, *]
    weight: Tensor,  # [O, I] or [O, C / groups, *K]
    size: Sizes,  # of the layer's input maps
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:  # [N, I] or [N, C, *size]
    """``W^T y``."""
    if weight.dim() == 2:
        return y @ weight
    _, function = CONVOLUTIONS[weight.dim() - 2]
    spare = room(size, tuple(weight.shape[2:]), padding, dilation)
    left_over = tuple(r % s for r, s in zip(spare, stride, strict=True))
    return function(y, weight, None, stride, padding, left_over, groups, dilation)


def room(size: Sizes, kernel: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """How far the window of a convolution can move in the padded map, in pixels."""
    sides = zip(size, kernel, padding, dilation, strict=True)
    return tuple(n + 2 * p - d * (k - 1) - 1 for n, k, p, d in sides)


def unit(x: Tensor) -> Tensor:
    """``x`` scaled to norm 1; a vector of zeros, as from a layer whose weights are zero, stays zero."""
    return F.normalize(x.flatten(), dim=0, eps=torch.finfo(x.dtype).tiny).view_as(x)
