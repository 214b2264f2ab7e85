"""Pooling: constants from the geometry of the windows, exact for averages and for windows that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.linear.windows import per_dimension, pooling_stride, require_dim
from fastbound.domains.lipschitz.certificate import dense_norm
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import rule

Size = int | Sequence[int]


# ---- averages: a Kronecker product of one matrix per dimension -----------------------------------------------------


def _avg_pool(function: Callable[..., Tensor], spatial: int) -> Callable[..., Lipschitz]:
    def avg_pool(
        input: Lipschitz,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Lipschitz:
        require_dim(function.__name__, input, spatial + 2)
        if divisor_override is not None:
            raise NotImplementedError(
                f"{function.__name__}{module_path()}: divisor_override has no rule; scale the average instead."
            )
        kernel, padding = per_dimension(kernel_size, spatial), per_dimension(padding, spatial)
        stride = pooling_stride(stride, kernel)
        nominal = function(input.nominal, kernel, stride, padding, ceil_mode, count_include_pad)
        sides = zip(input.shape[2:], kernel, stride, padding, strict=True)
        norms = [_average_norm(*side, bool(ceil_mode), bool(count_include_pad)) for side in sides]
        return input.mapped_to(nominal, math.prod(norms))

    return avg_pool


@cache
def _average_norm(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool, include_pad: bool) -> float:
    """Upper bound of the norm of averaging along one dimension."""
    impulses = torch.eye(size, dtype=torch.float64).unsqueeze(1)
    return dense_norm(F.avg_pool1d(impulses, kernel, stride, padding, ceil_mode, include_pad).squeeze(1))


def _adaptive_avg_pool(function: Callable[..., Tensor], spatial: int) -> Callable[..., Lipschitz]:
    def adaptive_avg_pool(input: Lipschitz, output_size: Any) -> Lipschitz:
        require_dim(function.__name__, input, spatial + 2)
        nominal = function(input.nominal, output_size)
        sides = zip(input.shape[2:], nominal.shape[2:], strict=True)
        return input.mapped_to(nominal, math.prod(_adaptive_norm(size, out) for size, out in sides))

    return adaptive_avg_pool


@cache
def _adaptive_norm(size: int, out: int) -> float:
    impulses = torch.eye(size, dtype=torch.float64).unsqueeze(1)
    return dense_norm(F.adaptive_avg_pool1d(impulses, out).squeeze(1))


for _spatial, _average, _adaptive in (
    (1, F.avg_pool1d, F.adaptive_avg_pool1d),
    (2, F.avg_pool2d, F.adaptive_avg_pool2d),
    (3, F.avg_pool3d, F.adaptive_avg_pool3d),
):
    rule(Lipschitz, _average)(_avg_pool(_average, _spatial))
    rule(Lipschitz, _adaptive)(_adaptive_avg_pool(_adaptive, _spatial))


# ---- maxima --------------------------------------------------------------------------------------------------------


def _max_pool(function: Callable[..., Tensor], spatial: int) -> Callable[..., Lipschitz]:
    def max_pool(
        input: Lipschitz,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,  # True arrives as another function, which is refused
    ) -> Lipschitz:
        """A maximum changes at most as much as the input that changes most, so an input counts once per window."""
        require_dim(function.__name__, input, spatial + 2)
        kernel, padding, dilation = (per_dimension(v, spatial) for v in (kernel_size, padding, dilation))
        stride = pooling_stride(stride, kernel)
        nominal = function(input.nominal, kernel, stride, padding, dilation, ceil_mode)
        sides = zip(input.shape[2:], nominal.shape[2:], kernel, stride, padding, dilation, strict=True)
        return input.mapped_to(nominal, math.sqrt(math.prod(_most_windows(*side) for side in sides)))

    return max_pool


@cache
def _most_windows(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The largest number of windows along one dimension that share an input."""
    places = [o * stride - padding + t * dilation for o in range(out) for t in range(kernel)]
    return max((places.count(i) for i in range(size)), default=1)


for _spatial, _maximum in ((1, F.max_pool1d), (2, F.max_pool2d), (3, F.max_pool3d)):
    rule(Lipschitz, _maximum)(_max_pool(_maximum, _spatial))
