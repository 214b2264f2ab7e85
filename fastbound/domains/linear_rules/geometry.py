"""Geometry of windows: strides, paddings and kernels as one number per dimension."""

from __future__ import annotations

from collections.abc import Sequence

from fastbound.domains.location import module_path


def per_dimension(value: int | Sequence[int], length: int) -> tuple[int, ...]:
    """``value`` as ``length`` numbers, one of them repeated; raises ValueError for any other count."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if len(values) not in (1, length):
        raise ValueError(f"convolution or pooling{module_path()}: wanted one number or {length}, got {values}.")
    return values * length if len(values) == 1 else values
