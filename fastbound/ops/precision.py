"""Autocast lowers the products of layers, and nothing else of a bound."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def lowered_by_autocast(product: Function) -> Function:
    """A product that under ``torch.autocast`` reads its float32 tensors in autocast's dtype and returns float32 again.

    Sums inside the product are float32 where the hardware's are; the result is rounded to autocast's dtype once, as
    that of a plain layer. Everything between products stays float32: BatchNorm, ReLU, slopes, margins, losses.

    Soundness: none inside autocast. A rounded operand moves the bound by up to one part in 256 (bfloat16) or 2048
    (float16) of its terms, so such bounds may train and may not certify; `fastbound.certify` switches autocast off.
    """

    @wraps(product)
    def call(*args: Any, **kwargs: Any) -> Any:
        first = args[0]
        kind = first.device.type
        if first.dtype != torch.float32 or not _autocasts(kind):
            return product(*args, **kwargs)
        low = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            args = tuple(_converted(value, low) for value in args)
            out = product(*args, **{name: _converted(value, low) for name, value in kwargs.items()})
            return tuple(result.to(first.dtype) for result in out)

    return call  # type: ignore[return-value]


def _autocasts(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _converted(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def kept_from_autocast(function: Function) -> Function:
    """A function of tensors whose own products autocast must not lower: they add up a bound, and are no layer's."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kind = args[0].device.type
        if not _autocasts(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]
