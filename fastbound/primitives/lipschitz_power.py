"""`lipschitz_power`: a layer as a linear operator W on samples, its adjoint, and unit vectors.

A convolution acts on zero-padded maps of a fixed size; its weight says how many dimensions they have. The inputs of a
linear layer have no such dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.primitives.convolution import Sizes, as_kernel, room

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
    return function(x, as_kernel(weight), None, stride, padding, dilation, groups)


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
    return function(y, as_kernel(weight), None, stride, padding, left_over, groups, dilation)


def unit(x: Tensor) -> Tensor:
    """``x`` scaled to norm 1; a vector of zeros, as from a layer whose weights are zero, stays zero."""
    return F.normalize(x.flatten(), dim=0, eps=torch.finfo(x.dtype).tiny).view_as(x)
