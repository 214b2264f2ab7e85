"""Autocast lowers the products of layers, and the maps between them while nobody computes in them.

Soundness: none inside autocast. A rounded operand moves a bound by up to one part in 256 (bfloat16) or 2048 (float16)
of its terms, so such bounds may train and may not certify; `fastbound.certify` switches autocast off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def autocast_dtype(kind: str) -> torch.dtype | None:
    """What ``torch.autocast`` lowers products to on a kind of device; None where it is off."""
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return None
    return torch.get_autocast_dtype(kind)


def maps_lowered_by_autocast(product: Function) -> Function:
    """A product of two float32 maps and weights that under ``torch.autocast`` takes the maps in autocast's dtype.

    It returns what it makes of such maps, as a plain layer does: sums are float32 where the hardware's are, and rounded
    once. Weights come as they are, so that what center and radius make of them adds up in their own dtype.
    """

    @wraps(product)
    def call(stack: Tensor, radius: Tensor, *args: Any, **kwargs: Any) -> Any:
        kind = radius.device.type
        low = autocast_dtype(kind)
        if low is None or radius.dtype not in (low, torch.float32):
            return product(stack, radius, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return product(stack.to(low), radius.to(low), *args, **kwargs)

    return call  # type: ignore[return-value]


def read_as(dtype: torch.dtype, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Parameters in the dtype of the maps that they meet."""
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def lowered_by_autocast(product: Function) -> Function:
    """A product that under ``torch.autocast`` reads its float32 tensors in autocast's dtype and returns float32 again.

    The result is rounded to autocast's dtype once, as that of a plain layer.
    """

    @wraps(product)
    def call(*args: Any, **kwargs: Any) -> Any:
        first = args[0]
        kind = first.device.type
        low = autocast_dtype(kind)
        if low is None or first.dtype != torch.float32:
            return product(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            args = tuple(_converted(value, low) for value in args)
            out = product(*args, **{name: _converted(value, low) for name, value in kwargs.items()})
            return tuple(result.to(first.dtype) for result in out)

    return call  # type: ignore[return-value]


def _converted(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def kept_from_autocast(function: Function) -> Function:
    """A function of tensors whose own products autocast must not lower: they add up a bound, and are no layer's."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kind = args[0].device.type
        if autocast_dtype(kind) is None:
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]
