"""Max-pooling is monotone, so its range follows from the lower and the upper bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.linear.windows import per_dimension, pooling_stride
from fastbound.domains.location import module_path
from fastbound.domains.records import MaxPool, Opaque, Record
from fastbound.domains.rules import function_name, rule
from fastbound.domains.streams import emit

Size = int | Sequence[int]


def _max(input: Interval, function: Callable[[Tensor], Tensor], record: Record) -> Interval:
    nominal = input.nominal
    streams = streams_of(function(input.lower), function(input.upper), None if nominal is None else function(nominal))
    return emit(record, (input,), *streams)


def _refuse_indices(return_indices: bool) -> None:
    if return_indices:
        raise NotImplementedError(f"max-pooling{module_path()}: return_indices=True has no rule; leave it out.")


def _max_pool(function: Callable[..., Tensor], spatial: int) -> Callable[..., Interval]:
    def max_pool(
        input: Interval,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Interval:
        _refuse_indices(return_indices)
        kernel, padding, dilation = (per_dimension(v, spatial) for v in (kernel_size, padding, dilation))
        stride = pooling_stride(stride, kernel)
        record = MaxPool(kernel, stride, padding, dilation, bool(ceil_mode))
        return _max(input, lambda x: function(x, kernel, stride, padding, dilation, ceil_mode), record)

    return max_pool


for _spatial, _function in ((1, F.max_pool1d), (2, F.max_pool2d), (3, F.max_pool3d)):
    rule(Interval, _function)(_max_pool(_function, _spatial))


def _adaptive_max_pool(function: Callable[..., Tensor], spatial: int) -> Callable[..., Interval]:
    def adaptive_max_pool(input: Interval, output_size: Any, return_indices: bool = False) -> Interval:
        _refuse_indices(return_indices)
        wanted = _adaptive_size(output_size, input.shape[-spatial:])
        record: Record = Opaque(function_name(function), module_path())
        if all(size % out == 0 for size, out in zip(input.shape[-spatial:], wanted, strict=True)):
            kernel = tuple(size // out for size, out in zip(input.shape[-spatial:], wanted, strict=True))
            record = MaxPool(kernel, kernel, (0,) * spatial, (1,) * spatial, False)
        return _max(input, lambda x: function(x, wanted), record)

    return adaptive_max_pool


for _spatial, _adaptive in ((1, F.adaptive_max_pool1d), (2, F.adaptive_max_pool2d), (3, F.adaptive_max_pool3d)):
    rule(Interval, _adaptive)(_adaptive_max_pool(_adaptive, _spatial))


def _adaptive_size(output_size: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * len(sizes)
    return tuple(size if out is None else out for out, size in zip(wanted, sizes, strict=True))
