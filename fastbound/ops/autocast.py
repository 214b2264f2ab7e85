"""``torch.autocast`` lowers the products of layers, and the storage of the maps between them.

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
    """The dtype to which ``torch.autocast`` lowers products on a kind of device; None if it is off."""
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return None
    return torch.get_autocast_dtype(kind)


def maps_lowered_by_autocast(product: Function) -> Function:
    """Makes a product of maps and weights take float32 maps in autocast's dtype under ``torch.autocast``.

    Results come in that dtype, as from a plain layer: sums are float32 if the hardware's are, and rounded once. Weights
    keep their dtype, so that their gradients from center and radius add up in it.
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
    """Weight and bias in the dtype of the maps."""
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def lowered_by_autocast(product: Function) -> Function:
    """Makes a product read float32 tensors in autocast's dtype under ``torch.autocast``, and return float32 again.

    The result is rounded to autocast's dtype once, as that of a plain layer is.
    """

    @wraps(product)
    def call(*args: Any, **kwargs: Any) -> Any:
        first = _first_tensor(args, kwargs)
        kind = first.device.type
        low = autocast_dtype(kind)
        if low is None or first.dtype != torch.float32:
            return product(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            args = tuple(_converted(value, low) for value in args)
            out = product(*args, **{name: _converted(value, low) for name, value in kwargs.items()})
            return tuple(result.to(first.dtype) for result in out)

    return call  # type: ignore[return-value]


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument, which is a tensor of each of these functions, or the first one given by name."""
    return args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))


def _converted(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def kept_from_autocast(function: Function) -> Function:
    """Switches autocast off inside a function of tensors, whose products add up a bound and belong to no layer."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kind = _first_tensor(args, kwargs).device.type
        if autocast_dtype(kind) is None:
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]
